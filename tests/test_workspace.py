from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataCorrupt, DatasetNotFound, EnvironmentMissing, InputError, LockHeld, StageNotReady
from curate.schema import FEATURES, GROUPS
from curate.workspace import (
    TEMPORARY,
    Workspace,
    append_log,
    canonical,
    digest,
    file_digest,
    read_log,
    replacing,
    write_bytes,
    write_json,
)  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(st.text(), json_values, max_size=4), max_size=6)


def start(code: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def said(process: subprocess.Popen[bytes]) -> bytes:
    """The next line that the process prints; fails if it prints none."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    assert ready, "the other process says nothing"
    return process.stdout.readline().strip()


@pytest.fixture
def launch() -> Any:
    """Starts Python code in another process; what is left of it is ended after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def make(code: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        started.append(start(code, *arguments))
        return started[-1]

    yield make
    for process in started:
        process.kill()
        process.communicate()


Launch = Callable[..., "subprocess.Popen[bytes]"]

# -- writing whole files


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "a.json"
    write_json(file, {"a": "é"})
    write_json(file, {"b": 1})
    assert file.read_bytes() == b'{\n  "b": 1\n}\n'
    assert [p.name for p in file.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_what_fails_half_way_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    file = tmp_path / "table.parquet"
    file.write_bytes(b"old")

    def write() -> None:
        with replacing(file) as temporary:
            temporary.write_bytes(b"half of the n")
            assert temporary.suffix == ".parquet"
            assert temporary.parent == tmp_path
            raise error

    with pytest.raises(error):
        write()
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["table.parquet"]


def test_a_process_killed_while_writing_leaves_the_old_content_and_the_next_stage_sweeps(launch: Launch) -> None:
    workspace = Workspace.create("a", "")
    table = workspace.table_path("manifest")
    write_bytes(table, b"old")
    inside = [table, workspace.models / "raw-1" / "seed-0" / "model.pkl", workspace.cache / "folds" / "fold.npy"]
    for file in inside:
        process = launch(
            "import sys, pathlib\nfrom curate.workspace import replacing\n"
            "with replacing(pathlib.Path(sys.argv[1])) as t:\n"
            "    t.write_bytes(b'half'); print('in', flush=True); sys.stdin.read()",
            file,
        )
        assert said(process) == b"in"
        process.kill()
        process.wait()
    assert table.read_bytes() == b"old"
    assert len(list(workspace.root.rglob(f"{TEMPORARY}*"))) == 3
    with workspace.stage_lock("scan"):
        assert not list(workspace.root.rglob(f"{TEMPORARY}*"))
    assert table.read_bytes() == b"old"


def test_sweeping_removes_nothing_of_the_users(home: Path) -> None:
    workspace = Workspace.create("a", "")
    mine = workspace.root / "images/imported/mine/deep/.tmp-holiday.png"
    write_bytes(mine, b"x")
    outside = home / ".tmp-other"
    outside.mkdir()
    write_bytes(outside / ".tmp-file", b"x")
    workspace.cache.mkdir()
    (workspace.cache / "link").symlink_to(outside)
    workspace.sweep()
    assert mine.exists()
    assert (outside / ".tmp-file").exists()


@pytest.mark.parametrize("name", [".tmp-abcd_123.jpg", ".tmp-4711-link", ".tmp-4711-9"])
def test_what_a_crash_left_deep_among_the_images_is_swept(home: Path, name: str) -> None:
    workspace = Workspace.create("a", "")
    left = workspace.root / "images/imported/mine/deep/deeper" / name
    write_bytes(left, b"x")
    with workspace.stage_lock("x"):
        assert not left.exists()


def test_an_owner_that_cannot_be_written_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.create("a", "")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EnvironmentMissing, match="No space"), workspace.stage_lock("x"):
        pass
    monkeypatch.undo()
    with workspace.stage_lock("x"):  # and the lock is free again
        pass


# -- a folder that cannot be written

UNWRITABLE = """
import os, sys
from pathlib import Path
from curate.errors import EnvironmentMissing
from curate.workspace import Workspace, append_log, write_bytes
root = Path(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
def hold():
    with Workspace(root).stage_lock("scan"):
        raise SystemExit("held the lock of a folder that is not ours")
for work in (lambda: write_bytes(root / "a", b""), lambda: write_bytes(root / "new" / "a", b""),
             lambda: append_log(root / "decisions.jsonl", [{}]), hold):
    try:
        work()
    except EnvironmentMissing as error:
        print(error, error.exit_code, flush=True)
"""


def test_a_folder_without_permission_is_told_as_such(home: Path, launch: Launch) -> None:
    home.chmod(0o555)
    try:
        process = launch(UNWRITABLE, home)
        told = process.communicate()[0].decode().splitlines()
    finally:
        home.chmod(0o755)
    assert process.returncode == 0
    assert len(told) == 4
    for line in told:
        assert str(home) in line
        assert line.endswith("cannot be written: permission denied. Choose a folder that is yours. 3")
    assert list(home.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_told(home: Path) -> None:
    (home / "datasets").write_bytes(b"")
    for write in (
        lambda: Workspace.create("a", ""),
        lambda: write_bytes(home / "datasets" / "file", b""),
        lambda: append_log(home / "datasets" / "log.jsonl", [{}]),
    ):
        with pytest.raises(EnvironmentMissing, match=r"datasets.* cannot be written: Not a directory|File exists"):
            write()
    assert (home / "datasets").read_bytes() == b""


def test_an_error_of_what_is_written_is_not_taken_for_one_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError), replacing(tmp_path / "a"):
        tmp_path.mkdir()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    with pytest.raises(EnvironmentMissing, match=r"a cannot be written: No space left.*make room"), replacing(file):
        Path("/dev/full").write_bytes(b"new")
    assert file.read_bytes() == b"old"
    log = tmp_path / "log.jsonl"
    log.symlink_to("/dev/full")
    with pytest.raises(EnvironmentMissing, match=r"log\.jsonl cannot be written: No space left"):
        append_log(log, [{"a": 1}])


# -- logs


@given(batches=st.lists(records, max_size=4), tail=st.binary(max_size=20).filter(lambda b: not {10, 125} & set(b)))
def test_what_is_appended_is_read_even_after_a_torn_line(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[dict[str, Any]]], tail: bytes
) -> None:
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    wanted = []
    for batch in batches:
        append_log(log, batch)
        wanted += batch
        with log.open("ab") as stream:
            stream.write(b'{"torn":' + tail)  # a crash in the middle of a line
    read = read_log(log)
    assert read.records == wanted
    assert len(read.torn) == bool(batches) + sum(bool(batch) for batch in batches[1:])


def test_a_torn_last_line_is_set_aside_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_log(log, [{"n": 1}, {"n": 2}])
    with log.open("ab") as stream:
        stream.write('{"n": 3, "why": "é'.encode()[:-1])
    assert [r["n"] for r in read_log(log).records] == [1, 2]
    assert len(read_log(log).torn) == 1
    append_log(log, [{"n": 4}])
    assert [r["n"] for r in read_log(log).records] == [1, 2, 4]
    assert read_log(log).torn == ['{"n": 3, "why": "\ufffd']


def test_a_whole_last_line_without_its_newline_counts(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"n": 1}\n\n[1]\nnull\n{"n": 2}')
    append_log(log, [])
    append_log(log, [{"n": 3}])
    read = read_log(log)
    assert [r["n"] for r in read.records] == [1, 2, 3]
    assert read.torn == ["[1]", "null"]


APPEND = """
import itertools, select, sys
from pathlib import Path
from curate.workspace import append_log
print("ready", flush=True)
sys.stdin.readline()
for n in itertools.count():
    if select.select([sys.stdin], [], [], 0)[0]:
        break
    append_log(Path(sys.argv[1]), [{"by": sys.argv[2], "n": n, "part": part, "pad": "x" * 3000} for part in (0, 1)])
    print(n, flush=True)
"""


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def test_two_processes_that_append_at_once_lose_nothing(tmp_path: Path, launch: Launch) -> None:
    log = tmp_path / "log.jsonl"
    processes = {name: launch(APPEND, log, name) for name in ("ann", "bob")}
    for process in processes.values():
        assert said(process) == b"ready"
    for process in processes.values():
        go(process)
    for process in processes.values():  # until each has written while the other did
        while said(process) != b"9":
            pass
    finished = {}
    for name, process in processes.items():
        finished[name] = int((process.communicate()[0].split() or [b"9"])[-1])
        assert process.returncode == 0
    read = read_log(log)
    assert read.torn == []
    for name, last in finished.items():
        mine = [(r["n"], r["part"]) for r in read.records if r["by"] == name]
        assert mine == [(n, part) for n in range(last + 1) for part in (0, 1)]


def test_a_process_killed_while_appending_loses_no_finished_line(tmp_path: Path, launch: Launch) -> None:
    log = tmp_path / "log.jsonl"
    for turn in range(3):
        process = launch(APPEND, log, turn)
        assert said(process) == b"ready"
        go(process)
        finished = max(int(said(process)) for _ in range(5 + 7 * turn))
        process.send_signal(signal.SIGKILL)
        process.wait()
        append_log(log, [{"by": "after", "n": turn}])
        read = read_log(log)
        lines = {(r["n"], r.get("part")) for r in read.records if r["by"] == str(turn)}
        assert lines >= {(n, part) for n in range(finished + 1) for part in (0, 1)}
        assert read.records[-1] == {"by": "after", "n": turn}


# -- digests


@given(json_values)
def test_a_digest_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    def turned(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: turned(part[key]) for key in reversed(part)}
        return [turned(item) for item in part] if isinstance(part, list) else part

    assert digest(value) == digest(turned(value))
    assert len(digest(value)) == 64


def test_digests_tell_values_apart_that_read_alike() -> None:
    values: list[tuple[Any, ...]] = [("ab",), ("a", "b"), (["a", "b"],), (1,), ("1",), (None,), ("null",), (), ("",)]
    assert len({digest(*value) for value in values}) == len(values)
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# -- the stage lock

HOLD = """
import sys
from pathlib import Path
from curate.workspace import Workspace
with Workspace(Path(sys.argv[1])).stage_lock("measure"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_held_by_another_process_names_it_and_is_free_when_it_is_killed(launch: Launch) -> None:
    workspace = Workspace.create("birds", "")
    process = launch(HOLD, workspace.root)
    assert said(process) == b"held"
    with (
        pytest.raises(LockHeld, match=rf"'birds': measure, process {process.pid} on .*, since \d{{4}}-") as caught,
        workspace.stage_lock("audit"),
    ):
        pytest.fail("two stages hold the lock at once")
    assert caught.value.exit_code == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with workspace.stage_lock("audit"):
        assert f"audit, process {os.getpid()}" in (workspace.root / ".stage.owner").read_text()
    assert not (workspace.root / ".stage.owner").exists()


def test_a_decision_can_be_appended_while_a_stage_runs(launch: Launch) -> None:
    workspace = Workspace.create("birds", "")
    process = launch(HOLD, workspace.root)
    assert said(process) == b"held"
    append_log(workspace.decisions, [{"n": 1}])
    assert read_log(workspace.decisions).records == [{"n": 1}]


def test_a_stage_that_fails_frees_the_lock() -> None:
    workspace = Workspace.create("a", "")
    with pytest.raises(ZeroDivisionError), workspace.stage_lock("one"):
        _ = 1 / 0
    with workspace.stage_lock("two"), pytest.raises(LockHeld, match="two, process"), workspace.stage_lock("three"):
        pass


# -- data sets and tables


def test_a_data_set_is_found_by_name_and_by_path(home: Path) -> None:
    made = Workspace.create("my birds", 'title = "x"')
    assert made.root == home / "datasets" / "my birds"
    assert Workspace.find("my birds") == made
    assert Workspace.find(made.root) == made
    assert made.name == "my birds"
    assert made.spec().title == "x"
    assert made.reports == (home / "reports" / "my birds").resolve()


def test_a_data_set_outside_datasets_reports_inside_itself(tmp_path: Path) -> None:
    write_bytes(tmp_path / "pictures" / "curate.toml", b"")
    assert Workspace.find(tmp_path / "pictures").reports == (tmp_path / "pictures" / "report").resolve()


def test_a_data_set_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(DatasetNotFound, match=r"no data set 'cats'.*there is none yet.*curate new"):
        Workspace.find("cats")
    Workspace.create("dogs", "")
    Workspace.create("birds", "")
    with pytest.raises(DatasetNotFound, match=r"no data set 'cats'.*there are: birds, dogs"):
        Workspace.find("cats")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a\\b"])
def test_a_name_that_is_no_folder_name_makes_nothing(name: str, home: Path) -> None:
    with pytest.raises(InputError, match="cannot name a data set"):
        Workspace.create(name, "")
    assert list(home.iterdir()) == []


def test_a_name_that_is_taken_is_not_overwritten() -> None:
    made = Workspace.create("a", 'title = "mine"')
    with pytest.raises(InputError, match="exists already"):
        Workspace.create("a", "")
    assert made.spec().title == "mine"


def test_a_table_is_checked_when_written_and_read_back_the_same(features_of: Any) -> None:
    workspace = Workspace.create("a", "")
    table = features_of([{"path": "x", "phash": 2**64 - 1}, {"path": "y"}])
    workspace.write_table("features", table.select(list(reversed(FEATURES.columns))))
    assert workspace.read_table("features").equals(table)
    before = workspace.table_path("features").read_bytes()
    with pytest.raises(InputError, match="table features"):
        workspace.write_table("features", table.drop("phash"))
    assert workspace.table_path("features").read_bytes() == before


def test_the_same_table_is_the_same_file() -> None:
    workspace = Workspace.create("a", "")
    digests = set()
    for _ in range(2):
        workspace.write_table("groups", GROUPS.empty())
        digests.add(file_digest(workspace.table_path("groups")))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("table", "stage"),
    [("manifest", "scrape or import"), ("features", "measure"), ("groups", "dedupe"), ("predictions", "audit")],
)
def test_a_table_that_was_not_made_names_the_stage_that_makes_it(table: str, stage: str) -> None:
    workspace = Workspace.create("a", "")
    assert not workspace.has_table(table)
    with pytest.raises(StageNotReady, match=rf"no table '{table}' yet: run `curate {stage}`"):
        workspace.read_table(table)


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
def test_a_broken_table_is_told_and_can_be_made_again(content: bytes) -> None:
    workspace = Workspace.create("a", "")
    write_bytes(workspace.table_path("groups"), content)
    with pytest.raises(DataCorrupt, match=r"groups\.parquet cannot be read.*Delete it"):
        workspace.read_table("groups")
    workspace.write_table("groups", GROUPS.empty())
    assert workspace.read_table("groups").equals(pl.DataFrame(schema=GROUPS.columns))
