"""Lock libraries of Python whose own tests need more than a lock service, unchanged, against the Redis dialect:
take, contend, extend, release."""
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
