"""Coordinators to test against: the real program, on a port of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
DEADLINE = 30.0


def binary():
    """The coordinator: COORDINATOR_BIN, or what was built here."""
    named = os.environ.get("COORDINATOR_BIN")
    built = [REPOSITORY / "target" / kind / "coordinator" for kind in ("debug", "release")]
    for path in [named] if named else built:
        if Path(path).exists():
            return str(path)
    pytest.exit("no coordinator to test: cargo build --all-features, or set COORDINATOR_BIN")


def eventually(done, what="it happens"):
    """Waits until ``done()`` is true, and gives what it gave."""
    give_up_at = time.monotonic() + DEADLINE
    while True:
        result = done()
        if result:
            return result
        assert time.monotonic() < give_up_at, f"still not: {what}"
        time.sleep(0.005)


class Coordinator:
    """A process, its port, and its state."""

    def __init__(self, *arguments, port=0):
        self.directory = Path(tempfile.mkdtemp(prefix="coordinator-test-"))
        self.arguments = arguments
        self.port = port
        self.process = None
        self.start()

    def start(self):
        port_file = self.directory / "port"
        port_file.unlink(missing_ok=True)
        command = [binary(), "serve", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--port-file", str(port_file), *self.arguments]
        if "--ephemeral" not in self.arguments:
            command += ["--data-dir", str(self.directory / "state")]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
            )
        eventually(lambda: port_file.exists() and port_file.read_text().strip(), "it is ready")
        self.port = int(port_file.read_text())
        self.address = f"127.0.0.1:{self.port}"

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)

    def kill(self):
        self.process.kill()
        self.process.wait(DEADLINE)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def run(self, *arguments, **settings):
        """Another command of the program, against this one."""
        return subprocess.run(
            [binary(), *arguments, "--server", self.address],
            capture_output=True, text=True, timeout=DEADLINE, **settings,
        )  # fmt: skip

    def dispose(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_coordinator():
    coordinator = Coordinator("--ephemeral", "--drain-timeout", "0s")
    yield coordinator
    coordinator.dispose()


@pytest.fixture
def server(shared_coordinator, monkeypatch):
    """The address of a coordinator that all tests share; the default one."""
    monkeypatch.setenv("COORDINATOR_SERVER", shared_coordinator.address)
    return shared_coordinator.address


@pytest.fixture
def coordinator():
    """One of the test's own, with state, to be stopped and killed."""
    coordinator = Coordinator()
    yield coordinator
    coordinator.dispose()


@pytest.fixture
def name(request):
    """The name of a lock that no other test uses."""
    return f"{request.node.name[:200]}"
