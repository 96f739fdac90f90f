from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curate import measure
from curate.errors import EnvironmentMissing
from curate.images import ImageFailure
from curate.runner import Runner, batches, cores, get_runner
from curate.runner.local import LocalRunner

WORK = """
import os
import pathlib
import signal
from curate import figures
from curate.images import ImageFailure

def who(part):
    return os.getpid(), list(part)

def slow_first(part):
    total = 0
    for n in range(3_000_000 if part[0] == 0 else 1):
        total += n
    return list(part)

def refuse(part):
    if 5 in part:
        raise ImageFailure("corrupt", f"in {list(part)}")
    return list(part)

def die(part):
    if {13, 14, 61} & set(part):
        os.kill(os.getpid(), signal.SIGKILL)
    return list(part)

def die_always(part):
    os.kill(os.getpid(), signal.SIGKILL)

def die_once(part):
    mark = pathlib.Path(part[0][0])
    if part[0][1] == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [n for _, n in part]

def measure_and_die(jobs):
    if any("bomb" in path for path, *_ in jobs):
        os.kill(os.getpid(), signal.SIGKILL)
    return figures.measure_files(jobs)

def note(part):
    with open(part[0][0], "a") as stream:
        stream.write(f"{part[0][1]}\\n")
    return part[0][1]
"""


POOL = LocalRunner(workers=2, pool_from=2)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Functions that other processes can import."""
    (tmp_path / "batch_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    import batch_work

    yield batch_work
    del sys.modules["batch_work"]


@given(st.lists(st.integers()), st.integers(1, 9))
def test_batches_hold_every_item_once_in_order(items: list[int], size: int) -> None:
    parts = batches(items, size)
    assert [item for part in parts for item in part] == items
    assert all(len(part) == size for part in parts[:-1])
    assert all(parts)


@given(st.lists(st.integers()), st.integers(1, 9))
def test_one_worker_gives_what_calling_gives(items: list[int], size: int) -> None:
    assert list(LocalRunner(workers=1).map_batches(sum, items, size=size)) == [sum(p) for p in batches(items, size)]


def test_little_work_stays_in_this_process(work: ModuleType) -> None:
    found = list(LocalRunner(workers=2).map_batches(work.who, list(range(6)), size=2))
    assert found == [(os.getpid(), [0, 1]), (os.getpid(), [2, 3]), (os.getpid(), [4, 5])]


def test_much_work_goes_to_other_processes_and_comes_back_in_order(work: ModuleType) -> None:
    found = list(POOL.map_batches(work.who, list(range(23)), size=2))
    assert [item for _, part in found for item in part] == list(range(23))
    assert os.getpid() not in {pid for pid, _ in found}
    assert len(found) == 12


def test_results_come_in_order_although_the_first_takes_longest(work: ModuleType) -> None:
    assert list(POOL.map_batches(work.slow_first, list(range(8)), size=1)) == [[n] for n in range(8)]


def test_a_failure_in_another_process_arrives_as_it_was(work: ModuleType) -> None:
    found = []
    with pytest.raises(ImageFailure, match=r"corrupt: in \[4, 5\]") as caught:
        found.extend(POOL.map_batches(work.refuse, list(range(40)), size=2))
    assert caught.value.reason == "corrupt"


def test_who_stops_listening_stops_the_work(work: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "done"
    results = POOL.map_batches(work.note, [(str(log), n) for n in range(200)], size=1)
    assert next(iter(results)) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(log.read_text().splitlines()) <= 5, "more than two batches per worker were under way"


def test_one_that_kills_its_worker_costs_only_itself(work: ModuleType) -> None:
    found = list(POOL.map_batches(work.die, list(range(100)), size=4, lost=lambda item: [-item]))
    assert [item for part in found for item in part] == [-n if n in {13, 14, 61} else n for n in range(100)]
    assert found[0] == [0, 1, 2, 3]
    assert [-13] in found


def test_a_worker_that_was_killed_by_chance_costs_nothing(work: ModuleType, tmp_path: Path) -> None:
    items = [(str(tmp_path / "mark"), n) for n in range(40)]
    assert list(POOL.map_batches(work.die_once, items, size=4)) == [list(range(n, n + 4)) for n in range(0, 40, 4)]


def test_where_no_worker_can_live_it_is_told_and_nobody_is_blamed(work: ModuleType) -> None:
    lost: list[int] = []
    for option in ({}, {"lost": lambda item: lost.append(item)}):
        with pytest.raises(EnvironmentMissing, match="die again and again"):
            list(POOL.map_batches(work.die_always, list(range(12)), size=3, **option))
    with pytest.raises(EnvironmentMissing, match=r"4 items from 12 on"):
        list(POOL.map_batches(work.die, list(range(40)), size=4))


def test_an_image_that_ends_the_decoder_is_a_row_with_its_reason(
    work: ModuleType, tmp_path: Path, manifest_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{n}.png" for n in range(20)] + ["bomb.png", "last.png"]
    for name in names:
        Image.new("RGB", (20, 20), (9, 99, 9)).save(tmp_path / name)
    monkeypatch.setattr(measure, "measure_files", work.measure_and_die)
    table, failures = measure.measure(manifest_of([{"path": name} for name in names]), tmp_path, runner=POOL, batch=4)
    assert failures == {"bomb.png": "corrupt: the decoder died"}
    assert table["path"].to_list() == [name for name in names if name != "bomb.png"]


def test_without_ray_it_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentMissing, match=r"pip install 'curate\[ray\]'"):
        get_runner("ray")


def test_the_number_of_workers_is_that_of_this_process() -> None:
    assert LocalRunner().workers == cores() >= 1
    assert isinstance(get_runner(), LocalRunner)


@pytest.mark.slow
def test_ray_gives_what_this_process_gives(work: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    runner: Runner = get_runner("ray")
    try:
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0", "Ray would tell of its use"
        local = list(LocalRunner(workers=1).map_batches(work.slow_first, list(range(50)), size=7))
        assert list(runner.map_batches(work.slow_first, list(range(50)), size=7)) == local
        found = list(runner.map_batches(work.who, list(range(23)), size=2))
        assert [item for _, part in found for item in part] == list(range(23))
        assert os.getpid() not in {pid for pid, _ in found}
        with pytest.raises(ImageFailure, match=r"corrupt: in \[4, 5\]"):
            list(runner.map_batches(work.refuse, list(range(40)), size=2))
        assert list(runner.map_batches(work.who, [], size=2)) == []
        found = list(runner.map_batches(work.die, list(range(10, 22)), size=4, lost=lambda item: [-item]))
        assert [item for part in found for item in part] == [10, 11, 12, -13, -14, *range(15, 22)]
    finally:
        ray.shutdown()
