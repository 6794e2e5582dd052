"""TLS, against the real coordinator, with certificates made here."""

import asyncio
import importlib.util
import pickle
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import DEADLINE, Coordinator, eventually
from proxy import Proxy
from test_aio import on_a_loop
from test_faults import count_while_it_breaks
from test_processes import (
    GREENLETS, in_a_fork, interrupt_at_any_step, needs_fork, python,
)  # fmt: skip

import coordinator_client as cc
from coordinator_client import Client, Lock, Tls, _dial, aio
from coordinator_client._link import Link
from coordinator_client.observe import Observer

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl to make certificates with"
)
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


class Authority:
    """Makes certificates, in a directory of its own."""

    def __init__(self, directory, name="ca"):
        self.directory, self.name = directory, name
        self.openssl(
            "req", "-x509", *CURVE, "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN={name}", "-days", "30",
        )  # fmt: skip

    def openssl(self, *arguments):
        done = subprocess.run(
            ["openssl", *map(str, arguments)], cwd=self.directory, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def path(self, name):
        return str(self.directory / name)

    @property
    def ca(self):
        return self.path(f"{self.name}.pem")

    def issue(self, name, names="IP:127.0.0.1,DNS:locks.internal", uses="serverAuth", days=30):
        """``name``.pem and ``name``.key; with days below 0, one that is not valid any more."""
        self.openssl("req", *CURVE, "-keyout", f"{name}.key", "-out", "request", "-subj", "/CN=x")
        (self.directory / "more").write_text(f"subjectAltName={names}\nextendedKeyUsage={uses}\n")
        self.openssl(
            "x509", "-req", "-in", "request", "-CA", f"{self.name}.pem",
            "-CAkey", f"{self.name}.key", "-CAcreateserial", "-out", f"{name}.pem",
            "-days", days, "-extfile", "more",
        )  # fmt: skip
        return {"cert": self.path(f"{name}.pem"), "key": self.path(f"{name}.key")}


class Secure(Coordinator):
    """A coordinator that speaks TLS."""

    def __init__(self, authority, *arguments):
        self.authority = authority
        server = authority.issue("server")
        flags = ["--tls-cert", server["cert"], "--tls-key", server["key"]]
        super().__init__(*flags, *arguments)

    def start(self):
        super().start()
        self.plain, self.address = self.address, f"tls://{self.address}"

    @property
    def log(self):
        return (self.directory / "log").read_text()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def secure(authority):
    coordinator = Secure(authority)
    yield coordinator
    coordinator.dispose()


@pytest.fixture
def mutual(authority):
    coordinator = Secure(authority, "--tls-client-ca", authority.ca)
    yield coordinator
    coordinator.dispose()


def test_a_lock_is_held_over_tls(secure, authority, name):
    with Client(secure.address, tls=Tls(ca=authority.ca)) as client:
        for _ in range(50):
            with client.lock(name) as hold:
                assert hold.acquired and hold.token > 0
        with client.lock(name, note="n" * 255) as hold:
            assert client.status(name).holders[0].token == hold.token
            with pytest.raises(cc.LockBusy, match="held by"):
                client.lock(name, blocking=False).__enter__()
        assert client.server == secure.address
    assert "TLS failed" not in secure.log


def test_threads_take_turns_over_one_connection(secure, authority, name):
    counted, number = [], 0

    def count():
        nonlocal number
        for _ in range(20):
            with client.lock(name):
                before = number
                counted.append(before)
                number = before + 1

    with Client(secure.address, tls=Tls(ca=authority.ca)) as client:
        threads = [threading.Thread(target=count) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert number == 120 and counted == list(range(120))


def test_many_locks_at_once_are_more_than_a_record(secure, authority, name):
    names = [f"{name}/{'x' * 200}/{number}" for number in range(64)]
    with Client(secure.address, tls=Tls(ca=authority.ca)) as client:
        with client.lock_all(names):
            with Observer(secure.address, tls=Tls(ca=authority.ca)) as observer:
                assert len(observer.locks()) == 64


@on_a_loop
async def test_a_task_holds_a_lock_over_tls(secure, authority, name):
    async with aio.Client(secure.address, tls=Tls(ca=authority.ca)) as client:
        for _ in range(20):
            async with client.lock(name) as hold:
                assert hold.acquired
        async with client.lock(name) as hold:
            assert (await client.status(name)).holders[0].token == hold.token
        names = [f"{name}/{'x' * 200}/{number}" for number in range(64)]
        async with client.lock_all(names):
            pass
    assert "TLS failed" not in secure.log


def test_mutual_tls_and_the_variables_of_the_command_line(mutual, authority, monkeypatch, name):
    shown = authority.issue("client", "DNS:client.internal", "clientAuth")
    monkeypatch.setenv("COORDINATOR_SERVER", mutual.address)
    monkeypatch.setenv("COORDINATOR_SERVER_CA", authority.ca)
    monkeypatch.setenv("COORDINATOR_CLIENT_CERT", shown["cert"])
    monkeypatch.setenv("COORDINATOR_CLIENT_KEY", shown["key"])
    with Lock(name) as hold:
        assert Lock(name).status().holders[0].token == hold.token
    with Observer() as observer:
        observer.server_status()

    async def also():
        async with aio.Lock(name):
            return await aio.Lock(name).status()

    assert asyncio.run(also()) is not None
    cc.default_client().close()


def test_a_context_of_ones_own_is_used_as_it_is(mutual, authority, name):
    context = ssl.create_default_context(cafile=authority.ca)
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    shown = authority.issue("client", "DNS:client.internal", "clientAuth")
    context.load_cert_chain(shown["cert"], shown["key"])
    with Client(mutual.address, tls=context) as client, client.lock(name):
        pass
    with pytest.raises(ValueError, match="tls is bool"):
        Client(mutual.address, tls=True)


def told(address, **tls):
    """What both drivers say, and those who only look; it is the same."""
    texts, hints = [], []

    def hear(error):
        texts.append(str(error))
        hints.append(error.hint)

    for kind in (Client, Observer):
        try:
            one = kind(address, tls=Tls(**tls) if tls else None)
            one.connect() if kind is Client else one.server_status()
        except (cc.Unavailable, cc.ProtocolError) as error:
            hear(error)

    async def also():
        for kind in (aio.Client, aio.Observer):
            try:
                one = kind(address, tls=Tls(**tls) if tls else None)
                await (one.connect() if kind is aio.Client else one.server_status())
            except (cc.Unavailable, cc.ProtocolError) as error:
                hear(error)

    asyncio.run(also())
    assert len(texts) == 4 and len(set(texts)) == 1, texts
    assert all(hints)
    return texts[0]


def test_an_authority_that_is_not_trusted_is_told(secure, authority, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "stranger")
    words = "(its certificate is by an authority that is not trusted here)"
    assert told(secure.address, ca=other.ca).endswith(words)
    # The system's authorities do not know it either.
    assert told(secure.address).endswith(words)
    eventually(lambda: "does not trust the authority of our certificate" in secure.log)


def test_one_of_the_same_name_with_another_key_is_not_trusted(secure, authority, tmp_path):
    (tmp_path / "other").mkdir()
    assert "its certificate is" in told(secure.address, ca=Authority(tmp_path / "other").ca)


def test_a_certificate_for_another_name_is_told(secure, authority):
    text = told(secure.address, ca=authority.ca, server_name="db.internal")
    assert "its certificate is not for db.internal" in text
    if sys.version_info >= (3, 10) and sys.implementation.name == "cpython":
        assert text.endswith("is not for db.internal: it is for 127.0.0.1, locks.internal)")
    with Client(secure.address, tls=Tls(authority.ca, server_name="locks.internal")) as client:
        client.connect()


def test_an_expired_certificate_is_told(authority):
    coordinator = Secure(authority)
    try:
        authority.issue("server", days=-1)
        coordinator.process.send_signal(signal.SIGHUP)
        words = "(its certificate has expired)"
        tls = Tls(ca=authority.ca)

        def refused():
            try:
                Client(coordinator.address, tls=tls).connect().close()
            except cc.Unavailable as error:
                return str(error)

        assert eventually(refused).endswith(words)
        assert told(coordinator.address, ca=authority.ca).endswith(words)
    finally:
        coordinator.dispose()


def test_a_certificate_of_its_clients_is_wanted_or_refused(mutual, authority, tmp_path):
    words = "(it wants a certificate of its clients: name one, and its key)"
    assert told(mutual.address, ca=authority.ca).endswith(words)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "stranger")
    shown = stranger.issue("client", "DNS:client.internal", "clientAuth")
    text = told(mutual.address, ca=authority.ca, **shown)
    assert "(it refused our certificate: that " in text
    late = authority.issue("late", "DNS:client.internal", "clientAuth", days=-1)
    text = told(mutual.address, ca=authority.ca, **late)
    assert text.endswith("(it refused our certificate: that has expired)")


def test_who_speaks_no_tls_is_told_so_and_the_other_way_round(secure, authority, server):
    assert "it speaks TLS: write tls:// before its address" in told(secure.plain)
    assert "leave tls:// out" in told(f"tls://{server}", ca=authority.ca)
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        for _ in range(4):
            sock, _ = listener.accept()
            sock.recv(4096)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            sock.close()

    thread = threading.Thread(target=answer)
    thread.start()
    text = told("tls://127.0.0.1:%d" % listener.getsockname()[1], ca=authority.ca)
    assert text.endswith("(it does not speak TLS: leave tls:// out)")
    thread.join()
    listener.close()


def test_a_server_that_never_ends_the_handshake_is_given_up(authority):
    listener = socket.create_server(("127.0.0.1", 0))
    address = "tls://127.0.0.1:%d" % listener.getsockname()[1]
    with pytest.raises(cc.Unavailable, match="no answer within 0.3 s"):
        Client(address, tls=Tls(ca=authority.ca), connect_timeout=0.3).connect()
    listener.close()


def test_of_several_servers_the_first_that_proves_itself_is_taken(secure, authority, server):
    # The first does not speak TLS, and the second is not there.
    servers = [f"tls://{server}", "tls://127.0.0.1:1", secure.address]
    with Client(servers, tls=Tls(ca=authority.ca)) as client:
        client.connect()


def test_files_that_do_not_do_are_named(secure, authority, tmp_path):
    assert "(cannot read /none.pem: no such file" in told(secure.address, ca="/none.pem")
    key = authority.path("server.key")
    assert f"({key} has no certificate in PEM" in told(secure.address, ca=key)
    other = authority.issue("other")
    text = told(secure.address, ca=authority.ca, cert=other["cert"], key=key)
    assert f"(the key in {key} is not that of the certificate in {other['cert']})" in text
    text = told(secure.address, ca=authority.ca, cert=other["cert"], key="/none.key")
    assert "(cannot read /none.key: no such file" in text
    locked = tmp_path / "locked.key"
    authority.openssl("ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked)
    text = told(secure.address, ca=authority.ca, cert=other["cert"], key=str(locked))
    assert "one with a password" in text


def test_what_would_be_encrypted_less_than_it_reads_is_refused(server):
    for make in (Client, aio.Client, Observer):
        with pytest.raises(ValueError, match="tls says nothing without a server that speaks it"):
            make(server, tls=Tls(ca="ca.pem"))
    with pytest.raises(ValueError, match="says nothing without its certificate"):
        Client("tls://a", tls=Tls(key="key.pem"))


def test_servers_by_tls_are_named_as_on_the_command_line():
    servers = _dial.parse_servers("tls://a, b,tls://[::1]:1,tls://c:2/")
    assert _dial.shown(servers) == "tls://a:5625,b:5625,tls://[::1]:1,tls://c:2"
    assert [one.trust is not None for one in servers] == [True, False, True, True]
    assert _dial.shown(_dial.parse_servers(_dial.shown(servers))) == _dial.shown(servers)


def test_a_client_with_tls_can_be_pickled(secure, authority, name):
    client = pickle.loads(pickle.dumps(Client(secure.address, tls=Tls(ca=authority.ca))))
    with client, client.lock(name):
        pass


def test_without_tls_nothing_of_it_is_imported(server):
    script = (
        "import sys; from coordinator_client import Lock, Client, Tls\n"
        "with Lock('tls/none'): pass\n"
        "print([m for m in sys.modules if m in ('ssl', '_ssl', 'coordinator_client._tls')])"
    )
    out, err = python(script).communicate(timeout=DEADLINE)
    assert out == "[]\n", err


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_lock_is_held_over_a_restart_and_the_new_certificate_is_shown(
    secure, authority, name, how
):
    with Client(secure.address, tls=Tls(ca=authority.ca)) as client:
        with client.lock(name) as hold:
            generation = client.generation
            getattr(secure, how)()
            authority.issue("server")
            secure.start()
            eventually(lambda: client.generation != generation)
            assert hold.acquired
            assert client.status(name).holders[0].token == hold.token


@on_a_loop
async def test_a_task_holds_its_lock_over_a_restart(secure, authority, name):
    async with aio.Client(secure.address, tls=Tls(ca=authority.ca)) as client:
        async with client.lock(name) as hold:
            events = client.session_events()
            await asyncio.get_running_loop().run_in_executor(None, secure.stop)
            await asyncio.get_running_loop().run_in_executor(None, secure.start)
            while (await events.__anext__()).kind != "resumed":
                pass
            assert hold.acquired
            assert (await client.status(name)).holders[0].token == hold.token


def test_files_are_read_anew_for_each_connection(mutual, authority, name):
    shown = authority.issue("client", "DNS:client.internal", "clientAuth")
    proxy = Proxy(mutual.port)
    tls = Tls(ca=authority.ca, **shown)
    with Client(f"tls://{proxy.address}", tls=tls, ttl=60) as client, client.lock(name) as hold:
        generation = client.generation
        cert = Path(shown["cert"])
        kept = cert.read_text()
        cert.write_text("nonsense")
        events = client.session_events()
        proxy.cut()
        causes = (event.cause for event in events if event.kind == "disconnected")
        assert next(causes) is not None
        assert client.generation == generation
        cert.write_text(kept)
        eventually(lambda: client.generation != generation)
        assert hold.acquired
    proxy.close()


@pytest.mark.parametrize("fault", ["cut", "hush"])
def test_connections_that_break_are_made_anew(secure, authority, name, fault):
    proxy = Proxy(secure.port)
    with Client(f"tls://{proxy.address}", tls=Tls(ca=authority.ca), ttl=2) as client:
        with client.lock(name) as hold:
            generation = client.generation
            getattr(proxy, fault)()
            # Over a second connection, if nothing is heard of the first.
            eventually(lambda: client.generation != generation)
            assert hold.acquired
    proxy.close()


def test_bytes_that_are_not_the_servers_end_the_connection(secure, authority, name):
    client = Client(secure.address, tls=Tls(ca=authority.ca))
    with client, client.lock(name) as hold:
        generation = client.generation
        session = client._session
        feed = client.session_events()
        with session._lock:
            # As if somebody on the way changed a byte.
            link = session._link
            real = link.sock.sock

            class Forged:
                def __getattr__(self, wanted):
                    return getattr(real, wanted)

                def recv(self, size):
                    data = real.recv(size)
                    return data[:-1] + bytes([data[-1] ^ 1]) if data else data

            link.sock.sock = Forged()
        client.lock(name + "/2").acquire(timeout=10)
        eventually(lambda: client.generation != generation)
        assert hold.acquired
        causes = (event.cause for event in feed if event.kind == "disconnected")
        assert "TLS failed" in str(next(causes))


def test_every_increment_counts_once_whatever_breaks(secure, authority, tmp_path):
    count_while_it_breaks(secure, tmp_path, "tls://", COORDINATOR_SERVER_CA=authority.ca)


def test_what_a_full_socket_does_not_take_goes_out_later_and_once(authority):
    shown, sent = authority.issue("server"), bytes(range(256)) * 4_000
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown["cert"], shown["key"])
    listener, got = socket.create_server(("127.0.0.1", 0)), []
    is_full = threading.Event()

    def serve():
        sock, _ = listener.accept()
        with context.wrap_socket(sock, server_side=True) as peer:
            is_full.wait(DEADLINE)
            while sum(map(len, got)) < len(sent):
                got.append(peer.recv(65536))

    thread = threading.Thread(target=serve)
    thread.start()
    servers = _dial.parse_servers(
        "tls://127.0.0.1:%d" % listener.getsockname()[1], Tls(ca=authority.ca)
    )
    _, sock = _dial.connect_first(servers, 0, 5)
    sock.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    link = Link(1)
    link.sock = sock
    link.put(sent)
    assert link.outbox and link.failure is None
    is_full.set()

    def flush():
        link.flush()
        return not link.outbox

    eventually(flush)
    thread.join()
    assert b"".join(got) == sent
    link.close()
    listener.close()


def test_the_url_of_tooz_says_whom_to_trust(mutual, authority, name):
    coordination = pytest.importorskip("tooz.coordination")
    from coordinator_client.tooz import CoordinatorDriver
    from oslo_utils import netutils

    shown = authority.issue("client", "DNS:client.internal", "clientAuth")
    settings = f"ca={authority.ca}&cert={shown['cert']}&key={shown['key']}"

    def started(settings):
        url = netutils.urlsplit(f"coordinator://{mutual.plain}?{settings}")
        driver = CoordinatorDriver(b"me", url, url.params(collapse=False))
        driver.start()
        return driver

    driver = started(settings)
    lock = driver.get_lock(name.encode())
    assert lock.acquire(timeout=5) and lock.break_()
    driver.stop()
    with pytest.raises(coordination.ToozConnectionError, match="not trusted here"):
        started("tls=true")


@needs_fork
def test_a_child_says_nothing_over_its_parents_connection(secure, authority, name):
    client = Client(secure.address, tls=Tls(ca=authority.ca))
    with client, client.lock(name) as hold:
        generation, token = client.generation, hold.token

        def child():
            assert not hold.acquired
            with client.lock(name + "/child") as mine:
                got = mine.token > token
            client.close()
            return got

        assert in_a_fork(child) == "True"
        with client.lock(name + "/parent"):
            assert hold.acquired and client.generation == generation
        assert client.status(name).holders[0].token == hold.token


@needs_fork
def test_the_child_of_a_loop_says_nothing_either(secure, authority, name):
    async def main():
        async with aio.Client(secure.address, tls=Tls(ca=authority.ca)) as client:
            async with client.lock(name) as hold:
                generation = client.generation
                assert in_a_fork(lambda: hold.acquired) == "False"
                async with client.lock(name + "/parent"):
                    return hold.acquired and client.generation == generation

    assert asyncio.run(main())


def test_an_interrupt_between_any_two_steps_leaves_nothing(secure, authority, name):
    interrupt_at_any_step(Client(secure.address, tls=Tls(ca=authority.ca)), name)


def test_a_process_that_ends_frees_its_locks_at_once(secure, authority, name):
    script = """
        import sys, asyncio
        from coordinator_client import Client, Tls, aio
        server, ca, name, kind = sys.argv[1:]
        if kind == "threads":
            Client(server, tls=Tls(ca=ca), ttl=600).lock(name).acquire()
        else:
            loop = asyncio.new_event_loop()
            lock = aio.Client(server, tls=Tls(ca=ca), ttl=600).lock(name)
            loop.run_until_complete(lock.acquire())
        """
    with Client(secure.address, tls=Tls(ca=authority.ca)) as client:
        for kind in ("threads", "loop"):
            process = python(script, secure.address, authority.ca, name, kind)
            out, err = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0, err
            # Long before the lease ends.
            with client.lock(name, timeout=10):
                pass


@pytest.mark.parametrize("kind", GREENLETS)
@pytest.mark.parametrize("order", ["patched first", "imported first"])
def test_greenlets_hold_locks_over_tls(secure, authority, name, kind, order):
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed")
    script = """
        import sys
        patch, name, order, server, ca = sys.argv[1:]
        if order == "imported first":
            import coordinator_client
        exec(patch)
        from coordinator_client import Client, Tls
        client, got = Client(server, tls=Tls(ca=ca)), []
        def work(number):
            with client.lock(name):
                got.append(number)
                sleep(0.02)
        wait([spawn(work, number) for number in range(4)])
        client.close()
        print(got)
        """
    process = python(script, GREENLETS[kind], name, order, secure.address, authority.ca)
    out, err = process.communicate(timeout=DEADLINE)
    assert out == "[0, 1, 2, 3]\n", (out, err)
