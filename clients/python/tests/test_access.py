"""Who a client is: credentials, shown to a coordinator with an access file."""

import asyncio
import hashlib
import os
import signal
import zlib

import pytest
from conftest import Coordinator, eventually
from coordinator_client import Client, InvalidRequest, LockLost, Rejected, _dial, aio
from coordinator_client.observe import Observer


def credential(name):
    random = (name.encode() * 32)[:32].hex()
    return f"coord_{random}{zlib.crc32(random.encode()):08x}"


FILE = """
[[principal]]
name = "ann"
credentials = ["sha256:{ann}"]
may = [ {{ do = ["lock", "see"], names = ["ann/*"] }} ]
"""


class Guarded(Coordinator):
    """A coordinator with an access file."""

    def __init__(self, directory):
        self.file = directory / "access.toml"
        self.admit("ann")
        super().__init__("--access-file", str(self.file))

    def admit(self, name):
        """Takes the credential of this name for that of ann, once it is read."""
        digest = hashlib.sha256(credential(name).encode()).hexdigest()
        self.file.write_text(FILE.format(ann=digest))
        self.file.chmod(0o600)


@pytest.fixture
def guarded(tmp_path):
    coordinator = Guarded(tmp_path)
    yield coordinator
    coordinator.dispose()


def test_a_client_may_do_what_its_credential_allows(guarded):
    with Client(guarded.address, credential=credential("ann")) as client:
        with client.lock("ann/a"):
            holder = client.status("ann/a").holders[0]
            assert holder.identity.startswith("ann ")
        with pytest.raises(Rejected) as denied:
            client.lock("bob/a").acquire()
        assert denied.value.code == "Forbidden" and "access file" in denied.value.hint
        assert 'ann may not lock "bob/a"' in str(denied.value)
        with pytest.raises(Rejected):
            client.status("bob/a")
    with Observer(guarded.address, credential=credential("ann")) as observer:
        assert observer.lock("ann/a") is None


def test_a_client_of_a_loop_may_do_what_its_credential_allows(guarded):
    async def life():
        async with aio.Client(guarded.address, credential=credential("ann")) as client:
            async with client.lock("ann/a"):
                status = await client.status("ann/a")
                assert status.holders[0].identity.startswith("ann ")
            with pytest.raises(Rejected) as denied:
                await client.lock("bob/a").acquire()
            assert denied.value.code == "Forbidden"

    asyncio.run(life())


@pytest.mark.parametrize("shown", [None, credential("mallory")])
def test_who_proves_nobody_is_refused(guarded, shown):
    with pytest.raises(Rejected) as refused:
        Client(guarded.address, credential=shown).connect()
    assert refused.value.code == "Unauthenticated"


def test_a_holder_that_other_rules_refuse_reads_that_and_of_no_broken_connection(guarded):
    with Client(guarded.address, credential=credential("ann")) as client:
        lock = client.lock("ann/a")
        lock.acquire()
        guarded.admit("bob")
        guarded.process.send_signal(signal.SIGHUP)
        eventually(lambda: lock.state == "lost", "it is lost")
        with pytest.raises(LockLost, match="refuses this client now") as lost:
            lock.release()
        assert lost.value.reason == "Refused"
        with pytest.raises(Rejected, match="proves nobody here"):
            client.lock("ann/b").acquire()


def test_the_environment_shows_a_credential_too(guarded, monkeypatch, tmp_path):
    monkeypatch.setenv("COORDINATOR_CREDENTIAL", credential("ann"))
    with Client(guarded.address) as client, client.lock("ann/a"):
        pass
    monkeypatch.delenv("COORDINATOR_CREDENTIAL")
    (tmp_path / "ann").write_text(credential("ann") + os.linesep)
    monkeypatch.setenv("COORDINATOR_CREDENTIAL_FILE", str(tmp_path / "ann"))
    with Client(guarded.address) as client, client.lock("ann/a"):
        pass


def test_what_is_no_credential_is_told_before_anything_is_sent(monkeypatch, tmp_path):
    with pytest.raises(InvalidRequest):
        Client("127.0.0.1:1", credential="hunter2")
    monkeypatch.setenv("COORDINATOR_CREDENTIAL_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidRequest):
        Client("127.0.0.1:1")


def test_a_credential_is_neither_printed_nor_sent_in_clear_to_others():
    client = Client("127.0.0.1:1", credential=credential("ann"))
    assert credential("ann") not in repr(client._servers)
    assert [_dial._is_here(here) for here in ("127.0.0.9", "::1", "::ffff:127.0.0.1")] == [True] * 3
    assert not _dial._is_here("10.0.0.1") and not _dial._is_here("fe80::1%eth0")


def test_who_shows_nothing_is_told_what_to_show(guarded):
    with pytest.raises(Rejected) as denied:
        Client(guarded.address).lock("ann/a").acquire()
    assert denied.value.code == "Unauthenticated" and "credential=" in denied.value.hint
