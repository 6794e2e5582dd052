"""What would be uploaded: a wheel and an sdist, installed in an environment with nothing in it."""

import shutil
import subprocess
import sys
import venv
import zipfile

import pytest
from conftest import REPOSITORY

import coordinator_client

SOURCE = REPOSITORY / "clients/python"
pytest.importorskip("build")


def run(*command, **settings):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("package")
    source = directory / "source"
    unwanted = shutil.ignore_patterns("*.egg-info", "__pycache__", "build", "dist")
    shutil.copytree(SOURCE, source, ignore=unwanted)
    # The wheel is made of the sdist.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, source)
    (wheel,), (sdist,) = directory.glob("*.whl"), directory.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_is_for_every_python_and_has_nothing_but_the_package(packages):
    wheel, sdist = packages
    assert wheel.name == f"coordinator_client-{coordinator_client.__version__}-py3-none-any.whl"
    # setuptools wrote a hyphen once.
    name = sdist.name.replace("coordinator-client", "coordinator_client")
    assert name == f"coordinator_client-{coordinator_client.__version__}.tar.gz"
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"coordinator_client", wheel.name.rsplit("-py3", 1)[0] + ".dist-info"}
    assert "coordinator_client/py.typed" in names
    assert wheel.stat().st_size < 130_000


@pytest.mark.parametrize("which", ["wheel", "sdist"])
def test_it_is_installed_and_locks(packages, which, tmp_path, server):
    package = packages[which == "sdist"]
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    python = environment / "bin/python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
        "--no-build-isolation", "--target", site, package,
    )  # fmt: skip
    script = "import coordinator_client as c; l = c.Lock('package'); l.acquire(); print(l.acquired)"
    assert run(python, "-c", script, cwd=tmp_path) == "True\n"
    assert run(python, "-m", "compileall", "-q", site) == ""


def test_nothing_is_needed_beside_the_standard_library():
    script = (
        "import sys, coordinator_client, coordinator_client.aio, coordinator_client.observe;"
        "names = getattr(sys, 'stdlib_module_names', None);"
        "print({m.split('.')[0] for m in sys.modules} - set(names or sys.modules)"
        " - {'coordinator_client', '__main__'})"
    )
    used = run(sys.executable, "-S", "-c", script, env={"PYTHONPATH": str(SOURCE / "src")})
    assert used == "set()\n"
