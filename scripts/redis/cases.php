<?php
// phpredis and Laravel's locks, unchanged, against the Redis dialect: take, contend, wait, release.
require '/usr/share/php/Illuminate/Support/autoload.php';
require '/usr/share/php/Illuminate/Redis/autoload.php';
require '/usr/share/php/Illuminate/Cache/autoload.php';

use Illuminate\Cache\RedisStore;
use Illuminate\Redis\RedisManager;

function ok(bool $is, string $what): void
{
    if (!$is) {
        throw new Exception($what);
    }
}

$port = (int) $argv[1];
$cases = [
    'phpredis: SET NX PX, transaction' => function () use ($port) {
        $redis = new Redis();
        $redis->connect('127.0.0.1', $port);
        ok($redis->set('php-a', '1', ['nx', 'px' => 5000]) === true, 'taken');
        ok($redis->set('php-a', '2', ['nx', 'px' => 5000]) === false, 'twice');
        ok($redis->pttl('php-a') > 4000, 'its time');
        ok($redis->multi()->get('php-a')->del('php-a')->exec() === ['1', 1], 'transaction');
    },
    'Laravel locks' => function () use ($port) {
        $server = ['default' => ['host' => '127.0.0.1', 'port' => $port, 'database' => 0], 'options' => []];
        $store = new RedisStore(new RedisManager(null, 'phpredis', $server), 'laravel-');
        $lock = $store->lock('a', 5);
        ok($lock->get() === true, 'taken');
        ok($store->lock('a', 5)->get() === false, 'twice');
        ok($store->lock('a', 5)->release() === false, "another's");
        ok($store->restoreLock('a', $lock->owner())->release() === true, 'restored and released');
        ok($store->lock('a', 5)->block(1, fn () => 'done') === 'done', 'waited');
        ok($store->lock('a')->get() === true, 'without an end');
        $store->lock('a')->forceRelease();
        ok($store->lock('a', 1)->get() === true, 'taken away');
        $store->lock('a')->forceRelease();
    },
];
$failed = 0;
foreach ($cases as $name => $run) {
    try {
        $run();
        echo "ok      $name\n";
    } catch (Throwable $why) {
        $failed += 1;
        echo "FAILED  $name: {$why->getMessage()}\n";
    }
}
echo count($cases) - $failed, ' of ', count($cases), "\n";
exit($failed ? 1 : 0);
