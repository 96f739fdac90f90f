"""The whole loop on the bundled sample: scrape, measure, dedupe, audit, review, retrain, report, export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curate import pipeline
from curate.acquire.preview import Preview
from curate.checks.labels import posterior_of
from curate.dataset import Dataset, new_dataset, open_dataset
from curate.demo import evaluate, reviewer
from curate.demo.server import bundled_gallery, serve
from curate.errors import DatasetNotFound
from curate.pipeline import Progress, StageRecord, quiet
from curate.report.build import Report
from curate.runner import RunnerName
from curate.workspace import parent_folder

NAME = "calligraphy"

Done = Callable[[StageRecord], object]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demo made."""

    dataset: Dataset
    reviewed: reviewer.Reviewed
    report: Report
    export: Path


def spec_text() -> str:
    """The curate.toml of the sample."""
    return (bundled_gallery().parent / "curate.toml").read_text(encoding="utf-8")


def sample(*, runner: RunnerName = "local", progress: Progress = quiet) -> Dataset:
    """The sample's data set, made where it is not there."""
    try:
        workspace = open_dataset(NAME).workspace
    except DatasetNotFound:
        workspace = new_dataset(NAME, spec=spec_text()).workspace
    return Dataset(workspace, runner=runner, progress=progress)


def is_sample(dataset: Dataset) -> bool:
    """Whether a data set is scraped from the bundled gallery."""
    return dataset.spec.scrape.endpoints == "demo"


def scrape(dataset: Dataset, *, force: bool = True, limit_per_class: int | None = None, **options: Any) -> StageRecord:
    """Serve the gallery on loopback, scrape it, and import its trusted holdout.

    Args:
        dataset: the sample's.
        force: ask again although it finished before.
        limit_per_class: serve only the first of each class.
        options: of `Dataset.scrape`.
    """
    dataset.progress("scrape", "starting the loopback server", 0, 0)
    with serve(limit_per_class=limit_per_class) as served:
        # Its failures are planted, so they do not pass: there is nothing to go on with.
        record, _ = dataset.scrape(force=force, go_on=False, endpoints=served.endpoints, **options)
    dataset.import_images(bundled_gallery() / "holdout", name="holdout", split="holdout")
    return record


def preview(dataset: Dataset, **options: Any) -> Preview:
    """What `scrape` would fetch of the gallery; options of `Dataset.preview`."""
    with serve() as served:
        return dataset.preview(endpoints=served.endpoints, **options)


def measured_against_truth(dataset: Dataset) -> dict[str, Any]:
    """`planted` of report.json: how the planted faults were found; empty before an audit."""
    workspace = dataset.workspace
    if not workspace.has_table("findings") or not workspace.has_table("predictions"):
        return {}
    known = posterior_of(pipeline.tables_of(workspace, dataset.spec))
    assert known is not None, "there are predictions"
    p_wrong = dict(zip(known[0]["path"].to_list(), known[3].p_wrong.tolist(), strict=True))
    return evaluate.evaluate(workspace, p_wrong, evaluate.read_planted())


def report(dataset: Dataset) -> Report:
    """The report of the sample, with how its planted faults were found."""
    extra: dict[str, Any] = {"planted": measured_against_truth(dataset)}
    by = {d.by for d in dataset.decisions.decisions.values()}
    if reviewer.NAME in by:
        told = reviewer.tally(dataset, reviewer.asked_about(dataset, dataset.spec.review.budget))
        extra["simulated"] = (
            f"Nobody sat at this review: a simulated reviewer accepted {told.duplicates} duplicates in bulk and "
            f"answered the first {told.asked} images of the queue from what was planted. It relabelled "
            f"{told.relabelled}, dropped {told.dropped} and kept {told.kept}."
        )
    return dataset.report(extra=extra)


def run(
    *, runner: RunnerName = "local", progress: Progress = quiet, done: Done = lambda _: None,
    limit_per_class: int | None = None,
) -> Demo:  # fmt: skip
    """Run every stage that is not up to date; interrupted, it goes on where it was.

    Args:
        runner: where the heavy stages run.
        progress: told what is being done.
        done: told of every stage that is finished, skipped ones included.
        limit_per_class: serve only the first images of each class.
    """
    dataset = sample(runner=runner, progress=progress)
    done(scrape(dataset, force=False, limit_per_class=limit_per_class))
    done(dataset.measure())
    for record in dataset.audit():
        done(record)
    faults = evaluate.read_planted()
    reviewed = reviewer.review(dataset, faults, budget=dataset.spec.review.budget)
    done(dataset.retrain())
    made = report(dataset)
    done(replace(dataset.records["report"], skipped=not made.written))
    to = parent_folder() / "exports" / NAME
    dataset.export(format="imagefolder", to=to)
    return Demo(dataset=dataset, reviewed=reviewed, report=made, export=to)
