"""What is missing from the environment is said with its remedy, and leaves nothing half-written."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from curate import decisions
from curate.errors import EnvironmentMissing
from curate.review import app, database


def tables(shapes):
    return {
        "manifest": shapes.manifest, "findings": shapes.findings, "predictions": shapes.predictions,
        "queue": shapes.queue, "decisions_log": decisions.read(shapes.workspace.decisions),
    }  # fmt: skip


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def taken():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_no_mongod(shapes, monkeypatch, tmp_path, free_port):
    monkeypatch.setattr(database, "mongod_path", lambda: tmp_path / "nowhere" / "mongod")
    before = files(shapes.workspace.root)
    with pytest.raises(EnvironmentMissing, match=r"MongoDB is missing.*make setup.*curate doctor") as caught:
        app.launch(shapes.workspace, **tables(shapes), port=free_port)
    assert caught.value.exit_code == 3
    assert "FIFTYONE_DATABASE_URI" in str(caught.value)
    assert files(shapes.workspace.root) == before


def test_a_mongod_that_does_not_run(shapes, monkeypatch, tmp_path):
    mongod = tmp_path / "mongod"
    mongod.write_text("no program")
    mongod.chmod(0o755)
    monkeypatch.setattr(database, "mongod_path", lambda: mongod)
    with pytest.raises(EnvironmentMissing, match="MongoDB does not run"):
        app.push(shapes.workspace, **tables(shapes))


def test_port_in_use_is_said_before_anything_is_done(shapes, taken):
    before = files(shapes.workspace.root.parent.parent)
    with pytest.raises(EnvironmentMissing, match=rf"port {taken} .*--port {taken + 1}"):
        app.launch(shapes.workspace, **tables(shapes), port=taken)
    assert files(shapes.workspace.root.parent.parent) == before


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_does_not_exist(shapes, port):
    with pytest.raises(EnvironmentMissing, match="port"):
        app.launch(shapes.workspace, **tables(shapes), port=port)


def test_a_database_folder_that_cannot_be_made(shapes, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path / "file" / "db"))
    with pytest.raises(EnvironmentMissing, match="FIFTYONE_DATABASE_DIR"):
        app.push(shapes.workspace, **tables(shapes))


def test_the_database_lies_beside_the_data_sets_unless_said_otherwise(shapes, home, monkeypatch, tmp_path):
    assert database.database_dir(shapes.workspace) != home / ".fiftyone"
    monkeypatch.delenv("FIFTYONE_DATABASE_DIR")
    assert database.database_dir(shapes.workspace) == home / ".fiftyone"
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "curate.toml").write_text("")
    assert database.database_dir(type(shapes.workspace).find(alone)) == alone / ".fiftyone"


PUSH_AND_DIE = """
import os, sys, signal
sys.path.insert(0, {tests!r})
os.environ["CURATE_HOME"] = {home!r}
import polars as pl
from curate import decisions
from curate.review import app
from curate.workspace import Workspace
workspace = Workspace.find("shapes")
dataset = app.push(
    workspace, manifest=workspace.read_table("manifest"), findings=None, predictions=None, queue=None,
    decisions_log=decisions.read(workspace.decisions),
)
import psutil
from curate.review.database import database_dir
folder = str(database_dir(workspace))
running = [p for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "mongod"]
mongods = [p for p in running if folder in p.info["cmdline"]]
assert len(mongods) == 1, mongods
print(len(dataset), folder, mongods[0].pid, flush=True)
if sys.argv[1] == "orphan":
    # The worst case: the process that watches over mongod dies first.
    mongods[0].parent().kill()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_two_homes_do_not_meet_and_an_orphaned_mongod_is_no_obstacle(make_shapes, tmp_path, monkeypatch):
    import os

    import psutil

    clean = {k: v for k, v in os.environ.items() if not k.startswith("FIFTYONE_") or k == "FIFTYONE_CONFIG_PATH"}

    def run(home, how):
        code = PUSH_AND_DIE.format(tests=str(Path(__file__).parent), home=str(home))
        done = subprocess.run(
            [sys.executable, "-c", code, how], env=clean, capture_output=True, text=True, timeout=200, check=False
        )
        assert done.stdout, done.stderr
        count, folder, pid = done.stdout.split()
        return int(count), folder, int(pid)

    homes = []
    for name in ("one", "two"):
        monkeypatch.setenv("CURATE_HOME", str(tmp_path / name))
        make_shapes()
        homes.append(tmp_path / name)
    count, folder, orphan = run(homes[0], "orphan")
    assert (count, folder) == (12, str(homes[0] / ".fiftyone"))
    assert psutil.pid_exists(orphan)
    assert run(homes[1], "end")[1] == str(homes[1] / ".fiftyone")
    assert run(homes[0], "end")[0] == 12
    assert not psutil.pid_exists(orphan)


LAUNCH = """
import sys
from curate.review import app
from curate.workspace import Workspace
from curate.decisions import DecisionLog
workspace = Workspace.find("shapes")
app.launch(
    workspace, manifest=workspace.read_table("manifest"), findings=None, predictions=None, queue=None,
    decisions_log=DecisionLog({}, {}), port=int(sys.argv[1]), on_ready=lambda address: print(address, flush=True),
)
print("over", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_the_app_and_its_mongod(shapes, free_port, tmp_path, how):
    import os
    import signal

    import psutil

    here = {"FIFTYONE_DATABASE_DIR": str(tmp_path / "db")}
    keep = {k: v for k, v in os.environ.items() if k != "FIFTYONE_PRIVATE_DATABASE_PORT"}
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(free_port)], env=keep | here, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == f"http://127.0.0.1:{free_port}\n"
        children = psutil.Process(process.pid).children(recursive=True)
        assert "mongod" in {child.name() for child in children}
        process.send_signal(getattr(signal, how))
        out, err = process.communicate(timeout=60)
    if how == "SIGINT":
        assert (process.returncode, out, err) == (0, "over\n", "")
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
