"""What the README and the docstrings show is tried as it stands."""

import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DEADLINE, REPOSITORY

import coordinator_client
from coordinator_client import Lock

README = (REPOSITORY / "clients/python/README.md").read_text()
RECIPES = {
    name: (needs.split(", ") if needs else [], code)
    for name, needs, code in re.findall(
        r"<!-- recipe: (\S+)(?: needs: ([^\n]*))? -->\n```python\n(.*?)```", README, re.DOTALL
    )
}


def recipe(name, directory):
    """Writes a recipe down and gives its path."""
    needs, code = RECIPES[name]
    missing = [need for need in needs if importlib.util.find_spec(need) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    assert code.count("\n") <= 20, "a recipe has 20 lines at most"
    path = directory / name
    path.write_text(code)
    return path


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True,
        timeout=4 * DEADLINE, env={**os.environ, **environment},  # It may start pytest, on PyPy.
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_recipe_is_tried():
    tested = set(re.findall(r'recipe\("(\S+)", tmp_path\)', Path(__file__).read_text()))
    assert set(RECIPES) == tested


def test_examples_in_docstrings_run(server):
    modules = [
        importlib.import_module(f"coordinator_client.{module.name}")
        for module in pkgutil.iter_modules(coordinator_client.__path__)
        if module.name != "tooz" or importlib.util.find_spec("tooz")
    ]
    tried = 0
    for module in [coordinator_client, *modules]:
        failed, count = doctest.testmod(module)
        assert not failed, module.__name__
        tried += count
    assert tried > 20


def test_examples_in_the_readme_run(server):
    example = re.search(r"<!-- doctest -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    test = doctest.DocTestParser().get_doctest(example, {}, "README", "README.md", 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_the_cron_job(server, tmp_path):
    path = recipe("cron.py", tmp_path)
    assert run(path, cwd=tmp_path) == "reporting\n"
    with Lock("nightly-report"):
        assert run(path, cwd=tmp_path) == ""


def test_the_pool_of_processes(server, tmp_path):
    assert run(recipe("pool.py", tmp_path), cwd=tmp_path) == "100\n"


def test_the_leader(server, tmp_path):
    recipe("leader.py", tmp_path)
    script = """
import time
from fastapi.testclient import TestClient
from coordinator_client import Lock
from leader import app
with TestClient(app):
    while app.state.term is None:
        time.sleep(0.005)
    seen = Lock("scheduler/leader").status().holders[0]
    print(seen.note, seen.token == app.state.term)
print(Lock("scheduler/leader").acquire(timeout=5))
"""
    assert run("-c", script, cwd=tmp_path) == "10.0.0.7:80 True\nTrue\n"


def test_the_fixture(server, tmp_path):
    recipe("conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test_it(database, n):\n    assert database.read_text() == 'made'\n"
    )
    out = run("-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "4 passed" in out


def test_the_celery_task(server, tmp_path):
    recipe("tasks.py", tmp_path)
    script = """
from coordinator_client import Lock
from tasks import app, rebuild
print(rebuild.apply(args=["a"]).get())
with Lock("rebuild/a"):
    app.conf.task_always_eager = True
    try:
        rebuild.apply(args=["a"], throw=True, retries=100)
    except Exception as error:
        print(type(error).__name__)
"""
    assert run("-c", script, cwd=tmp_path) == "rebuilt a\nLockBusy\n"


def test_the_celery_worker_with_prefork(server, tmp_path):
    recipe("tasks.py", tmp_path)
    text = (tmp_path / "tasks.py").read_text()
    (tmp_path / "broker").mkdir()
    text = text.replace(
        'broker="memory://", backend="cache+memory://"',
        'broker="filesystem://", backend="file://" + __import__("os").getcwd() + "/broker", '
        'broker_transport_options={k: "broker" for k in ("data_folder_in", "data_folder_out")}',
    )
    (tmp_path / "tasks.py").write_text(text)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "-P", "prefork"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        script = """
from tasks import rebuild
results = [rebuild.delay(name) for name in "abcd"]
print([result.get(timeout=20) for result in results])
"""
        out = run("-c", script, cwd=tmp_path)
    finally:
        worker.terminate()
        worker.wait(DEADLINE)
    assert out == "['rebuilt a', 'rebuilt b', 'rebuilt c', 'rebuilt d']\n"


def test_the_scheduled_job(server, tmp_path):
    path = recipe("scheduled.py", tmp_path)
    # On two machines, as it were.
    began = time.monotonic()
    one, other = (
        subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    ticks = [process.communicate(timeout=DEADLINE)[0].count("tick") for process in (one, other)]
    assert 2 <= sum(ticks) <= (time.monotonic() - began) / 0.9 + 1


def test_the_django_command(server, tmp_path):
    recipe("manage_once.py", tmp_path)
    commands = tmp_path / "site/management/commands"
    commands.mkdir(parents=True)
    for package in (commands, commands.parent, commands.parent.parent):
        (package / "__init__.py").touch()
    (tmp_path / "manage_once.py").rename(commands / "migrate_once.py")
    (tmp_path / "site").rename(tmp_path / "shop")
    script = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django.core.management import call_command
call_command("migrate_once")
"""
    assert run("-c", script, cwd=tmp_path) == "migrated\n"


def test_the_notebook(server, tmp_path):
    assert run(recipe("notebook.py", tmp_path), cwd=tmp_path) == "held\n"
