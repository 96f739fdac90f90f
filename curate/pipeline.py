"""Stage wiring: what each stage reads and writes, when it can be skipped, and where it runs. No graph engine.

A stage that finished leaves a record in `tables/stages.json`: a digest of all it depends on, the digests of the
tables it wrote, its seconds, and facts for the report. It is skipped while the first is the same and its tables are
there. Every stage first brings those that it needs up to date, except obtaining images.

Past 400 lines because what depends on what is easiest to follow on one page.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate import apart, checks, decisions, manifest, measure, neighbours, proof, queue
from curate.checks import duplicates, labels, leakage, outliers, quality
from curate.config import Spec
from curate.embedding_tag import embedding_tag
from curate.errors import DataCorrupt, InputError, StageNotReady
from curate.neighbours.thorough import thorough_candidates
from curate.resolve import CleanView, resolve
from curate.runner import RunnerName, get_runner
from curate.schema import EMBEDDINGS, FEATURES, GROUPS, HOLDOUT, PAIRS, PREDICTIONS
from curate.workspace import Workspace, digest, file_digest, now, write_json

VERSIONS = {"measure": 3, "dedupe": 3, "audit": 3, "check": 4, "retrain": 1, "report": 1, "export": 1}
"""Raised when a stage computes something else from the same inputs, so that what is on disk is made anew."""

CHECKS: tuple[checks.Check, ...] = (
    duplicates.check, leakage.check, quality.check, labels.check, outliers.check,
)  # fmt: skip

Progress = Callable[[str, str, int, int], None]
"""`progress(stage, what, done, total)`; a total of 0 means that it is not known."""


def quiet(stage: str, what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a finished stage left.

    Attributes:
        stage: its name.
        inputs: digest of everything that it depends on.
        tables: table name to digest of its file.
        seconds: it took, when it last ran.
        finished_at: UTC, ISO 8601.
        facts: what it wants to tell, JSON values.
        skipped: it was up to date and did not run this time.
    """

    stage: str
    inputs: str
    tables: dict[str, str]
    seconds: float
    finished_at: str
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False


def records(workspace: Workspace) -> dict[str, StageRecord]:
    """The records of finished stages, by name."""
    path = workspace.tables / "stages.json"
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {name: StageRecord(**record) for name, record in raw.items()}
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{path} cannot be read ({error}). Delete it and run the stages again: nothing else is lost."
        raise DataCorrupt(msg) from error


def save_record(workspace: Workspace, record: StageRecord) -> None:
    """Keep a record; only under the stage lock."""
    known = records(workspace) | {record.stage: record}
    kept = {
        name: {key: value for key, value in vars(r).items() if key != "skipped"} for name, r in sorted(known.items())
    }
    write_json(workspace.tables / "stages.json", kept)


def run_stage(
    workspace: Workspace, stage: str, inputs: Sequence[Any], tables: Sequence[str],
    work: Callable[[], dict[str, Any] | None], *, force: bool = False,
) -> StageRecord:  # fmt: skip
    """Run a stage unless its record says that it is up to date; only under the stage lock.

    Args:
        workspace: the data set.
        stage: its name.
        inputs: JSON values: everything that it depends on.
        tables: names of tables that it writes.
        work: does it and returns facts.
        force: run it in any case.
    """
    key = digest(stage, VERSIONS.get(stage, 0), *inputs)
    known = records(workspace).get(stage)
    if known and not force and known.inputs == key and all(workspace.has_table(name) for name in tables):
        return StageRecord(**{**vars(known), "skipped": True})
    start = time.perf_counter()
    facts = work() or {}
    record = StageRecord(
        stage=stage, inputs=key, tables={name: file_digest(workspace.table_path(name)) for name in tables},
        seconds=round(time.perf_counter() - start, 3), finished_at=now(), facts=facts,
    )  # fmt: skip
    save_record(workspace, record)
    return record


def optional(workspace: Workspace, name: str) -> pl.DataFrame | None:
    """A table, or None where it was not made yet."""
    return workspace.read_table(name) if workspace.has_table(name) else None


def classes_of(spec: Spec, images: pl.DataFrame) -> list[str]:
    """Class names in order: those of the spec, then others that images carry."""
    named = [c.name for c in spec.classes]
    found = images["label"].drop_nulls().unique().sort().to_list()
    return named + [name for name in found if name not in named]


def scan(workspace: Workspace, *, progress: Progress = quiet) -> pl.DataFrame:
    """Bring the manifest up to date with sources.jsonl, the files and the decided splits; under the stage lock.

    Raises:
        StageNotReady: no image was obtained yet.
    """
    # What other code read is read again: it may have taken for broken, or turned, what this does not.
    previous = _current(workspace, "manifest")
    log = _unsaved(workspace, "scanned")
    fresh = manifest.scan(
        workspace, previous=previous, log=log, progress=lambda done, total: progress("scan", "files", done, total)
    )
    if not fresh.height:
        msg = f"data set {workspace.name!r} has no images yet: run `curate scrape` or `curate import` first."
        raise StageNotReady(msg)
    folded = decisions.fold(decisions.read(workspace.decisions), fresh)
    split = {
        path: str(decision.value) for path, aspect in folded.heads
        if aspect == decisions.SPLIT and (decision := folded.get(path, aspect))
    }  # fmt: skip
    if split:
        decided = pl.DataFrame({"path": list(split), "decided": list(split.values())})
        fresh = fresh.join(decided, on="path", how="left", maintain_order="left")
        fresh = fresh.with_columns(split=pl.coalesce("decided", "split")).drop("decided")
    if previous is None or not fresh.equals(previous):
        workspace.write_table("manifest", fresh, version=VERSIONS["measure"])
    log.unlink(missing_ok=True)
    return fresh


def _current(workspace: Workspace, name: str) -> pl.DataFrame | None:
    """The manifest or the features, where this version of measuring made them: versions are never mixed."""
    return workspace.read_table(name) if workspace.table_version(name) == VERSIONS["measure"] else None


def _unsaved(workspace: Workspace, what: str) -> Path:
    """The log of what is done and in no table yet; those of other versions are removed."""
    log = workspace.cache / f"{what}-{VERSIONS['measure']}.jsonl"
    for other in workspace.cache.glob(f"{what}-*.jsonl"):
        if other != log:
            other.unlink(missing_ok=True)
    return log


def run_measure(workspace: Workspace, *, runner: RunnerName = "local", progress: Progress = quiet) -> StageRecord:
    """Hashes and quality figures of every readable image that has none yet."""
    images = scan(workspace, progress=progress)
    previous = _current(workspace, "features")
    readable = images.filter(pl.col("status") == "ok")
    measured = readable if previous is None else readable.join(previous, on=["path", "sha256"], how="semi")

    def work() -> dict[str, Any]:
        log = _unsaved(workspace, "measured")
        table, failures = measure.measure(
            images, workspace.root, runner=get_runner(runner), previous=previous, log=log,
            progress=lambda done, total: progress("measure", "images", done, total),
        )  # fmt: skip
        workspace.write_table("features", table, version=VERSIONS["measure"])
        if failures:
            why = pl.DataFrame({"path": list(failures), "why": list(failures.values())})
            told = images.join(why, on="path", how="left", maintain_order="left")
            bad = pl.col("why").is_not_null()
            workspace.write_table(
                "manifest",
                told.with_columns(
                    status=pl.when(bad).then(pl.lit("unreadable")).otherwise("status"),
                    error=pl.when(bad).then("why").otherwise("error"),
                ).drop("why"),
                version=VERSIONS["measure"],
            )
        log.unlink(missing_ok=True)
        unreadable = images.filter(pl.col("status") == "unreadable").height + len(failures)
        return {"images": table.height, "unreadable": unreadable}

    # Images that turn out to be unreadable while they are measured must not make the stage run again.
    there = images.filter(pl.col("status") != "missing").select("path", "sha256").rows()
    # One that could not be read for a while, and now can, has the same path and bytes as before.
    again = previous is None or measured.height < readable.height
    return run_stage(workspace, "measure", [there], ["features"], work, force=again)


def run_dedupe(
    workspace: Workspace, *, thorough: bool | None = None, runner: RunnerName = "local", progress: Progress = quiet
) -> StageRecord:
    """Groups of exact and near-duplicates.

    Args:
        workspace: the data set.
        thorough: also crops, turns and the like; None: as the spec says, or as it was asked for the last time.
        runner: where it runs.
        progress: told how far it is.
    """
    measured = run_measure(workspace, runner=runner, progress=progress)
    spec = workspace.spec()
    if thorough is None:
        known = records(workspace).get("dedupe")
        thorough = spec.dedupe.thorough or (known is not None and bool(known.facts.get("thorough")))
    images = workspace.read_table("manifest")
    distinct = apart.told_apart(decisions.fold(decisions.read(workspace.decisions), images), images)

    def work() -> dict[str, Any]:
        features = workspace.read_table("features")
        found = neighbours.candidates(
            features, workspace.root, spec.dedupe.max_distance, min_similarity=spec.dedupe.min_similarity,
            min_aligned=spec.dedupe.min_aligned, runner=get_runner(runner), cache=workspace.cache,
            progress=lambda what, done, total: progress("dedupe", what, done, total),
        )  # fmt: skip
        if thorough:
            vectors = _embedded(workspace, images.filter(pl.col("status") == "ok"), spec, runner, progress)
            found = thorough_candidates(
                features, workspace.root, found, runner=get_runner(runner), embeddings=vectors,
                min_similarity=spec.dedupe.min_similarity, min_aligned=spec.dedupe.min_aligned,
                cache=workspace.cache, memory=neighbours.Memory(workspace.cache),
                progress=lambda what, done, total: progress("dedupe", what, done, total),
            )  # fmt: skip
        table = neighbours.group_table(
            images, features, found, min_similarity=spec.dedupe.min_similarity, min_aligned=spec.dedupe.min_aligned,
            keeper=spec.dedupe.keeper, distinct=distinct,
        )  # fmt: skip
        pairs = neighbours.pair_table(
            images, found, min_similarity=spec.dedupe.min_similarity, min_aligned=spec.dedupe.min_aligned,
            distinct=distinct,
        )  # fmt: skip
        workspace.write_table("pairs", pairs)
        workspace.write_table("groups", table)
        groups = table["group"].n_unique()
        return {"pairs": pairs.height, "groups": groups, "images": table.height, "thorough": thorough}

    inputs = [
        measured.tables["features"], images.select("path", "obtained", "status").rows(),
        spec.dedupe.model_dump(mode="json"), distinct, embedding_tag(spec) if thorough else "",
    ]  # fmt: skip
    return run_stage(workspace, "dedupe", inputs, ["groups", "pairs"], work)


def _embedded(
    workspace: Workspace, images: pl.DataFrame, spec: Spec, runner: RunnerName, progress: Progress
) -> pl.DataFrame:
    """Embeddings of the audit's backbone; the audit takes over those that are kept."""
    from curate.learn.backbones import load_backbone
    from curate.learn.cache import decoded
    from curate.learn.embed import embed

    options = spec.audit
    images = images.sort("path")
    pixels = decoded(
        workspace, images, options.image_size, runner=get_runner(runner),
        progress=lambda done, total: progress("dedupe", "decoding", done, total),
    )  # fmt: skip
    vectors = embed(
        images, pixels, load_backbone(options.backbone, weights=options.weights), tag=embedding_tag(spec),
        mirror=spec.augment.flip, previous=optional(workspace, "embeddings"),
        progress=lambda done, total: progress("dedupe", "embedding", done, total),
    )  # fmt: skip
    if not workspace.has_table("embeddings"):
        workspace.write_table("embeddings", vectors)
    return vectors


def run_audit(
    workspace: Workspace, *, mode: Literal["auto", "probe", "finetune"] | None = None, runner: RunnerName = "local",
    progress: Progress = quiet,
) -> list[StageRecord]:  # fmt: skip
    """Out-of-fold predictions, then all checks and the queue."""
    grouped = run_dedupe(workspace, runner=runner, progress=progress)
    spec = workspace.spec()
    images = workspace.read_table("manifest")
    judged = images.filter((pl.col("status") == "ok") & pl.col("split").ne_missing(HOLDOUT))
    classes = classes_of(spec, images)
    wanted = mode or spec.audit.mode
    if wanted == "auto":
        from curate.learn.audit import resolve_mode

        wanted = resolve_mode("auto")
    judged_rows = judged.select("path", "sha256", "label").rows()
    inputs = [
        judged_rows, grouped.tables["groups"], grouped.tables["pairs"], spec.audit.model_dump(mode="json"),
        embedding_tag(spec), wanted, classes,
    ]  # fmt: skip
    if wanted == "finetune":
        inputs += [spec.train.model_dump(mode="json"), spec.augment.model_dump(mode="json")]

    readable = images.filter(pl.col("status") == "ok")
    _, connected = neighbours.touching(readable, workspace.read_table("pairs"))

    def work() -> dict[str, Any]:
        from curate.learn.audit import audit
        from curate.learn.backbones import device_name

        done = audit(
            workspace, judged, connected, classes, spec=spec, mode=wanted,
            runner=get_runner(runner), previous=optional(workspace, "embeddings"),
            progress=lambda what, done, total: progress("audit", what, done, total),
        )  # fmt: skip
        workspace.write_table("embeddings", done.embeddings)
        workspace.write_table("predictions", done.predictions)
        for file in workspace.tables.glob("probs-*.npy"):
            if file != _probs_file(workspace, done.predictions):
                file.unlink()
        return {
            "mode": done.mode,
            "temperature": round(done.temperature, 3),
            "notes": [*done.notes, *_strange_classes(spec, judged)],
            "classes": classes,
            "device": device_name(),
        }

    audited = run_stage(workspace, "audit", inputs, ["embeddings", "predictions"], work)
    return [grouped, audited, run_checks(workspace, progress=progress)]


def _strange_classes(spec: Spec, images: pl.DataFrame) -> list[str]:
    """Classes of the spec that no image has, and labels that the spec does not name, in words."""
    named = [c.name for c in spec.classes]
    found = images["label"].drop_nulls().unique().sort().to_list()
    strange = [name for name in found if name not in named] if named else []
    notes = [f"class {name} has no image" for name in named if name not in found]
    return notes + [f"label {name} is no class of curate.toml: is it misspelt, or missing there?" for name in strange]


def run_checks(workspace: Workspace, *, progress: Progress = quiet) -> StageRecord:
    """All checks on the tables that there are, and the queue."""
    spec = workspace.spec()
    done = records(workspace)
    images = workspace.read_table("manifest")
    tables = [done[stage].tables for stage in ("measure", "dedupe", "audit") if stage in done]
    facts = images.select("path", "sha256", "label", "split", "status", "width", "height").rows()
    inputs = [
        tables, facts, sorted(_orphans(workspace).items()), spec.checks.model_dump(mode="json"),
        spec.review.model_dump(mode="json"), spec.class_titles,
        [check.__module__ for check in checks.base.installed()],
    ]  # fmt: skip

    def work() -> dict[str, Any]:
        progress("check", "findings", 0, 0)
        seen = tables_of(workspace, spec)
        found = checks.run_checks([*CHECKS, *checks.base.installed()], seen, spec.checks)
        known = labels.posterior_of(seen)
        p_wrong = dict(zip(known[0]["path"], known[3].p_wrong.tolist(), strict=True)) if known else {}
        order = queue.build(found, p_wrong, seen.groups, probes=spec.review.probes, seed=spec.audit.seed)
        workspace.write_table("findings", found)
        workspace.write_table("queue", order)
        noise = known[3].noise.round(4).tolist() if known else []
        counts = dict(found["check"].value_counts(sort=True).iter_rows())
        return {"findings": counts, "noise": noise, "notes": quality.notes(seen, spec.checks)}

    return run_stage(workspace, "check", inputs, ["findings", "queue"], work)


def _orphans(workspace: Workspace) -> dict[str, str]:
    """Images dropped in favour of one that is itself out or unreadable, and that one."""
    view = clean_view(workspace)
    followed = view.rows.filter(pl.col("path").is_in(list(view.orphans)))
    return dict(followed.select("path", "in_favour_of").iter_rows())


def _probs_file(workspace: Workspace, predictions: pl.DataFrame) -> Path | None:
    """Where the probabilities of predictions are, if there are too many classes for the table to hold them."""
    if not predictions.height or len(predictions["probs"][0]):
        return None
    return workspace.tables / f"probs-{predictions['run'][0]}.npy"


def _mapped_probs(workspace: Workspace, predictions: pl.DataFrame) -> NDArray[np.floating] | None:
    file = _probs_file(workspace, predictions)
    if file is None:
        return None
    if not file.is_file():
        msg = f"{file} is not there: run `curate audit {workspace.name}` again."
        raise StageNotReady(msg)
    mapped: NDArray[np.floating] = np.load(file, mmap_mode="r")
    return mapped


def tables_of(workspace: Workspace, spec: Spec) -> checks.Tables:
    """What checks see of a data set."""
    images = workspace.read_table("manifest")

    def table(name: str, empty: pl.DataFrame) -> pl.DataFrame:
        found = optional(workspace, name)
        return empty if found is None else found

    predictions = table("predictions", PREDICTIONS.empty())
    return checks.Tables(
        manifest=images, features=table("features", FEATURES.empty()), pairs=table("pairs", PAIRS.empty()),
        groups=table("groups", GROUPS.empty()), embeddings=table("embeddings", EMBEDDINGS.empty()),
        predictions=predictions, probs=_mapped_probs(workspace, predictions), classes=tuple(classes_of(spec, images)),
        titles=spec.class_titles, orphans=_orphans(workspace),
    )  # fmt: skip


def clean_view(workspace: Workspace, *, only_reviewed: bool = False) -> CleanView:
    """The clean data set as the decisions make it now."""
    images = workspace.read_table("manifest")
    return resolve(images, decisions.read(workspace.decisions), only_reviewed=only_reviewed)


def training_sets(workspace: Workspace) -> tuple[dict[str, pl.DataFrame], pl.DataFrame, int]:
    """The images of both arms and of the holdout (`path, sha256, label`), and how many were kept out as leaks.

    An image that shows the same picture as one of the holdout takes part in neither arm.
    """
    images = workspace.read_table("manifest")
    columns = ["path", "sha256", "label"]
    labelled = images.filter((pl.col("status") == "ok") & pl.col("label").is_not_null())
    held = pl.col("split").eq_missing(HOLDOUT)
    pairs = optional(workspace, "pairs")
    direct, _ = neighbours.touching(labelled, PAIRS.empty() if pairs is None else pairs)
    trusted = set(labelled.filter(held)["path"].to_list())
    leaks = {path for path, others in direct.items() if not trusted.isdisjoint(others)}
    clean = resolve(images, decisions.read(workspace.decisions)).images
    free = ~held & ~pl.col("path").is_in(list(leaks))
    arms = {"raw": labelled.filter(free).select(columns), "curated": clean.filter(free).select(columns)}
    kept_out = labelled.filter(~held & pl.col("path").is_in(list(leaks))).height
    return arms, clean.filter(held).select(columns).sort("path"), kept_out


def run_retrain(workspace: Workspace, *, runner: RunnerName = "local", progress: Progress = quiet) -> StageRecord:
    """Train before and after, and compare on the holdout."""
    run_dedupe(workspace, runner=runner, progress=progress)
    spec = workspace.spec()
    images = workspace.read_table("manifest")
    classes = classes_of(spec, images)
    arms, holdout, kept_out = training_sets(workspace)
    if not holdout.height:
        msg = (
            f"data set {workspace.name!r} has no trusted holdout to compare on. Import one "
            f"(`curate import {workspace.name} FOLDER --split holdout`) or set some images apart "
            f"(`curate holdout {workspace.name} --n 200`) and review them."
        )
        raise StageNotReady(msg)

    def work() -> dict[str, Any]:
        from curate.learn.backbones import device_name
        from curate.learn.retrain import retrain

        done = retrain(
            workspace, arms, holdout, classes, spec=spec, runner=get_runner(runner),
            progress=lambda what, done, total: progress("retrain", what, done, total),
        )  # fmt: skip
        compared = proof.compare(done.right("raw"), done.right("curated"))
        return {
            "raw": compared.before, "curated": compared.after, "difference": compared.difference,
            "ci95": list(compared.ci95), "holdout": holdout.height, "seeds": list(spec.train.seeds),
            "images": done.images, "runs": done.runs, "leaks": kept_out, "device": device_name(),
            "by_seed": {arm: done.right(arm).mean(axis=1).round(6).tolist() for arm in done.probs},
            "confusion": {arm: _confusion(done.probs[arm].argmax(axis=2), done.labels, len(classes)) for arm in arms},
            "classes": classes,
        }  # fmt: skip

    inputs = [
        {arm: rows.sort("path").rows() for arm, rows in arms.items()}, holdout.rows(), classes,
        spec.train.model_dump(mode="json"), spec.augment.model_dump(mode="json"),
    ]  # fmt: skip
    known = records(workspace).get("retrain")
    gone = known is not None and not all((workspace.root / run).is_dir() for run in known.facts["runs"].values())
    return run_stage(workspace, "retrain", inputs, [], work, force=gone)


def _confusion(predicted: Any, labels: Any, k: int) -> list[list[float]]:
    """Share of each true class (rows) by predicted class (columns), over all seeds."""
    out = []
    for row in range(k):
        part = predicted[:, labels == row].ravel()
        out.append([round(float((part == column).mean()), 4) if len(part) else 0.0 for column in range(k)])
    return out


def newest_model(workspace: Workspace, arm: str = "curated") -> Path:
    """The exported learner of the first seed of an arm.

    Raises:
        StageNotReady: nothing was trained yet.
    """
    known = records(workspace).get("retrain")
    run = known.facts["runs"].get(arm) if known else None
    seeds: Mapping[str, Any] = known.facts if known else {}
    model = workspace.root / str(run) / f"seed-{seeds['seeds'][0]}" / "model.pkl" if run else None
    if model is None or not model.is_file():
        msg = f"data set {workspace.name!r} has no trained model: run `curate retrain {workspace.name}` first."
        raise StageNotReady(msg)
    return model


def set_holdout(workspace: Workspace, n: int, *, seed: int = 0, by: str | None = None) -> list[str]:
    """Set images apart as holdout, the same share of each class, whole duplicate groups at a time; undoable.

    Raises:
        InputError: n is less than one or leaves too little to train on.
    """
    images = workspace.read_table("manifest")
    free = images.filter(
        (pl.col("status") == "ok") & pl.col("label").is_not_null() & pl.col("split").ne_missing(HOLDOUT)
    )
    pairs = optional(workspace, "pairs")
    readable = images.filter(pl.col("status") == "ok")
    copies = list(neighbours.touching(readable, PAIRS.empty() if pairs is None else pairs)[0])
    alone = free.filter(~pl.col("path").is_in(copies))
    if not 0 < n <= alone.height // 2:
        msg = f"a holdout of {n} does not fit {alone.height} labelled images without duplicates: at most half of them."
        raise InputError(msg)
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    parts = alone.sort("path").partition_by("label", maintain_order=True)
    for place, part in enumerate(parts):
        count = round(n * (place + 1) / len(parts)) - round(n * place / len(parts))
        order = rng.permutation(part.height)[:count]
        chosen += [part["path"][int(k)] for k in order]
    decisions.decide(
        workspace.decisions, images, [(path, decisions.SPLIT, HOLDOUT) for path in sorted(chosen)],
        why="set apart as holdout", by=by,
    )  # fmt: skip
    return sorted(chosen)
