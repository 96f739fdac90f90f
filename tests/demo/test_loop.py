from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.dataset import open_dataset
from curate.demo import evaluate, loop, reviewer
from curate.export.write import read_seal, verify
from curate.pipeline import StageRecord

SMALL = Path(__file__).with_name("small.py")
KEYS = {
    "dataset", "created_at", "counts", "planted", "accuracy", "budget", "seconds", "versions", "device", "simulated",
}  # fmt: skip
Tree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def data(small_home: Path) -> dict[str, Any]:
    return json.loads((small_home / "reports/calligraphy/report.json").read_text())


def test_sample_in_the_repository_is_the_bundled_one() -> None:
    text = (Path(__file__).parents[2] / "datasets/calligraphy/curate.toml").read_text(encoding="utf-8")
    assert text == loop.spec_text()


def test_report_has_the_keys_that_later_checks_read(data: dict[str, Any]) -> None:
    assert set(data) == KEYS
    assert {
        "obtained",
        "rejected",
        "exact_duplicates",
        "near_duplicate_groups",
        "findings",
        "decisions",
        "exported",
    } <= set(data["counts"])
    assert set(data["accuracy"]) == {"raw", "curated", "difference", "ci95", "holdout", "seeds"}
    assert {"reviewed", "expected_errors", "actual_errors", "expected_remaining"} <= set(data["budget"])
    assert {"scrape", "measure", "dedupe", "audit", "check", "retrain"} <= set(data["seconds"])


@pytest.mark.parametrize("fault", ["exact_duplicate", "cross_class", "broken"])
def test_planted_faults_that_bytes_show_are_all_found_and_nothing_else(data: dict[str, Any], fault: str) -> None:
    row = data["planted"][fault]
    assert row["planted"] > 0
    assert (row["precision"], row["recall"]) == (1.0, 1.0)


def test_near_duplicates_are_found_without_false_pairs(data: dict[str, Any]) -> None:
    row = data["planted"]["near_duplicate"]
    assert row["planted"] > 0
    assert row["recall"] >= 0.9
    assert row["precision"] >= 0.98


def test_counts_add_up(data: dict[str, Any]) -> None:
    counts = data["counts"]
    assert counts["obtained"] == counts["exported"] + sum(counts["out_why"].values())
    assert counts["rejected"] == sum(counts["rejected_why"].values())
    assert data["budget"]["reviewed"] == 40
    assert data["accuracy"]["difference"] == pytest.approx(data["accuracy"]["curated"] - data["accuracy"]["raw"])
    low, high = data["accuracy"]["ci95"]
    assert low <= data["accuracy"]["difference"] <= high


def test_every_answer_of_the_reviewer_is_that_of_the_plan(demo_home: Path) -> None:
    dataset = open_dataset("calligraphy")
    planted = evaluate.truth(dataset.workspace, evaluate.read_planted())
    clean = {row["path"]: row for row in dataset.clean.rows.iter_rows(named=True)}
    asked = reviewer.asked_about(dataset, 40)
    assert len(asked) == 40
    wrong = 0
    for path in asked:
        faults = planted.get(path, {})
        if "off_topic" in faults or "two_styles" in faults:
            assert clean[path]["why"] == "dropped"
        else:
            true = next((f.true for f in faults.values() if f.true), clean[path]["given"])
            assert clean[path]["label"] == true
            wrong += true != clean[path]["given"]
    assert wrong > 0


def test_export_is_whole_and_holds_the_clean_data_set(demo_home: Path) -> None:
    folder = demo_home / "exports/calligraphy"
    assert verify(folder).problems == ()
    seal = read_seal(folder)
    assert seal is not None
    clean = open_dataset("calligraphy").clean.images
    images = [name for name in seal["files"] if name != "labels.csv"]
    assert len(images) == clean.height
    assert {name.split("/")[1] for name in images} == set(clean["label"].unique().to_list())


def test_second_run_skips_everything_and_changes_nothing(demo_home: Path, small: dict[str, Any], tree_of: Tree) -> None:
    records: list[StageRecord] = []
    small["run"](done=records.append)
    assert {record.stage for record in records} >= {
        "scrape",
        "measure",
        "dedupe",
        "audit",
        "check",
        "retrain",
        "report",
    }
    assert [record.stage for record in records if not record.skipped] == []
    # The home is a copy: its files were looked at again, for copying changed their times.
    before = tree_of(demo_home)
    small["run"]()
    assert tree_of(demo_home) == before


def test_changed_threshold_only_runs_the_checks_again(demo_home: Path) -> None:
    spec = demo_home / "datasets/calligraphy/curate.toml"
    spec.write_text(spec.read_text().replace("outlier = 0.05", "outlier = 0.2"))
    dataset = open_dataset("calligraphy")
    before = dataset.findings.filter(pl.col("check") == "outlier").height
    ran = {record.stage: not record.skipped for record in dataset.audit()}
    assert ran == {"dedupe": False, "audit": False, "check": True}
    assert dataset.findings.filter(pl.col("check") == "outlier").height > before


def _result(home: Path) -> dict[str, Any]:
    """What must be the same however often a run was stopped: all but times."""
    data = json.loads((home / "reports/calligraphy/report.json").read_text())
    for key in ("created_at", "seconds"):
        del data[key]
    dataset = open_dataset(home / "datasets/calligraphy")
    seal = read_seal(home / "exports/calligraphy")
    assert seal is not None
    decisions = sorted((d.path, d.aspect, str(d.value)) for d in dataset.decisions.decisions.values())
    return {
        "report": data, "export": seal["content"], "decisions": decisions,
        "findings": dataset.findings.to_dicts(), "groups": dataset.groups.to_dicts(),
    }  # fmt: skip


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_result(home: Path, small_home: Path, demo_port: int) -> None:
    """SIGKILL in a loop: at a random line of progress of each stage, then once more to the end."""
    draw = random.Random(7)
    environment = os.environ | {"CURATE_HOME": str(home), "CURATE_DEMO_PORT": str(demo_port)}
    command = [sys.executable, "-W", "ignore", str(SMALL)]
    killed_in = []
    for stage in ("scrape", "measure", "dedupe", "audit", "check", "retrain", "retrain", "report"):
        wanted = draw.randint(1, {"scrape": 40, "retrain": 6, "audit": 3}.get(stage, 1))
        seen = 0
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if re.match(rf"{stage}: (?!done)", line):
                    seen += 1
                    if seen == wanted:
                        process.send_signal(signal.SIGKILL)
                        killed_in.append(stage)
                        break
            process.wait()
    assert "scrape" in killed_in
    assert "retrain" in killed_in
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=600)
    assert _result(home) == _result(small_home)
    assert list(home.rglob(".tmp-*")) == []


def test_sample_is_made_again_where_its_models_were_deleted(demo_home: Path, small: dict[str, Any]) -> None:
    shutil.rmtree(demo_home / "datasets/calligraphy/models")
    records: list[StageRecord] = []
    small["run"](done=records.append)
    ran = {record.stage for record in records if not record.skipped}
    assert "retrain" in ran
    assert ran <= {"retrain", "report"}
