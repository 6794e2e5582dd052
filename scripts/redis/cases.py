"""Lock libraries of Python whose own tests need more than a lock service, unchanged, against the Redis dialect:
take, contend, extend, release; and redis-py over mutual TLS.

    cases.py PORT [PORT_OF_TLS FOLDER_OF_CERTIFICATES]
"""
import sys

PORT = int(sys.argv[1])
CASES = []


def case(run):
    CASES.append(run)
    return run


@case
def redlock_py():
    from redlock import Redlock
    first = Redlock([{"host": "127.0.0.1", "port": PORT, "db": 0}], retry_count=1)
    lock = first.lock("py-a", 5000)
    assert lock, "not taken"
    assert not first.lock("py-a", 5000), "taken twice"
    first.unlock(lock)
    assert first.lock("py-a", 50), "not released"


@case
def sherlock():
    import redis
    import sherlock as library
    client = redis.Redis(port=PORT)
    options = {"client": client, "timeout": 1, "expire": 5, "retry_interval": 0.05}
    first, second = library.RedisLock("py-b", **options), library.RedisLock("py-b", **options)
    assert first.acquire(blocking=False), "not taken"
    assert not second.acquire(blocking=False), "taken twice"
    assert first.renew() is not False, "not renewed"
    assert second.locked(), "not seen"
    first.release()
    assert second.acquire(), "not released"
    second.release()


if len(sys.argv) > 3:
    @case
    def redis_py_over_mutual_tls():
        import redis
        port, folder = sys.argv[2:4]
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.pem"
        own = f"&ssl_certfile={folder}/client.pem&ssl_keyfile={folder}/client.key"
        first, second = redis.Redis.from_url(url + own), redis.Redis.from_url(url + own)
        lock = first.lock("py-c", timeout=5)
        assert lock.acquire(blocking=False), "not taken"
        assert not second.lock("py-c", timeout=5).acquire(blocking=False), "taken twice"
        lock.extend(5)
        lock.release()
        try:
            redis.Redis.from_url(url).ping()
        except (redis.ConnectionError, OSError):
            return
        raise AssertionError("heard without a certificate")


failed = 0
for run in CASES:
    try:
        run()
        print(f"ok      {run.__name__}")
    except Exception as why:
        failed += 1
        print(f"FAILED  {run.__name__}: {type(why).__name__}: {why}")
print(f"{len(CASES) - failed} of {len(CASES)}")
sys.exit(1 if failed else 0)
