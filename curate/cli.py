"""The command line: thin verbs, each one library call plus printing. The only place that prints.

Past 400 lines because there is one function per verb, and a verb split from its neighbours would be harder to find.
Exit codes: 0 done; 1 `--fail-on` found something; 2 bad input or usage; 3 something is missing from the environment;
130 interrupted, with nothing lost.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from curate.errors import CurateError, InputError
from curate.terminal import visible

if TYPE_CHECKING:
    from curate.acquire.preview import Preview
    from curate.dataset import Dataset
    from curate.pipeline import StageRecord


class Engine(StrEnum):
    """Search engines."""

    google = "google"
    baidu = "baidu"
    bing = "bing"
    flickr = "flickr"
    urls = "urls"


class RunnerOption(StrEnum):
    """Where heavy stages run."""

    local = "local"
    ray = "ray"


class ImportFormat(StrEnum):
    """What an import reads."""

    auto = "auto"
    folder = "folder"
    csv = "csv"


class ExportFormat(StrEnum):
    """What an export writes."""

    imagefolder = "imagefolder"
    csv = "csv"


class AuditMode(StrEnum):
    """How out-of-fold predictions are made."""

    auto = "auto"
    probe = "probe"
    finetune = "finetune"


app = typer.Typer(
    name="curate", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="From a messy pile of images to a clean, proven data set.\n\n"
    "A data set NAME lives in datasets/NAME; its report in reports/NAME. Start with `curate demo`, `curate new` or "
    "`curate import`; `curate status NAME` says what comes next.",
)  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME", help="the data set: its name under datasets/, or its folder")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
Runner = Annotated[RunnerOption, typer.Option("--runner", help="where heavy work runs")]


def _say(text: str = "") -> None:
    typer.echo(visible(text, keep="\n\t"))


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _json(value: Any) -> None:
    import json

    made = json.dumps(_plain(value), ensure_ascii=False)
    # JSON escapes only the first 32 control characters by itself.
    typer.echo("".join(f"\\u{ord(c):04x}" if "\x7f" <= c <= "\x9f" else c for c in made))


def _progress_line(text: str) -> None:
    typer.echo(text, err=True)


@contextmanager
def _dataset(name: str, *, json: bool = False, runner: RunnerOption = RunnerOption.local) -> Iterator[Dataset]:
    from curate.dataset import Dataset, open_dataset
    from curate.progress import showing

    opened = open_dataset(name)
    with showing(json, _progress_line) as progress:
        yield Dataset(opened.workspace, runner=runner.value, progress=progress)


def _told(record: StageRecord) -> str:
    facts = record.facts
    words = {
        "scrape": lambda: ", ".join(f"{n} {label}" for label, n in facts["kept"].items()),
        "measure": lambda: f"{facts['images']} images, {facts['unreadable']} unreadable",
        "dedupe": lambda: f"{facts['images']} images in {facts['groups']} groups",
        "audit": lambda: f"every label predicted out of fold ({facts['mode']}, {facts['device']})",
        "check": lambda: ", ".join(f"{n} {check}" for check, n in facts["findings"].items()) or "no findings",
        "retrain": lambda: _gain(facts),
    }  # fmt: skip
    text = words[record.stage]() if record.stage in words else "written"
    return f"{record.stage:>8}  {'up to date' if record.skipped else f'{record.seconds:6.1f} s'}   {text}"


def _gain(facts: Mapping[str, Any]) -> str:
    low, high = facts["ci95"]
    return (
        f"{facts['raw']:.1%} raw, {facts['curated']:.1%} curated on {facts['holdout']} trusted images: "
        f"{100 * facts['difference']:+.1f} points, 95% interval {100 * low:+.1f} to {100 * high:+.1f}"
    )


@app.command()
def new(
    name: Name,
    classes: Annotated[list[str], typer.Option("--class", help="LABEL=QUERY[,QUERY...]; once per class")],
    title: Annotated[str, typer.Option(help="what people call it")] = "",
    json: Json = False,
) -> None:
    """Make a data set from classes and what to search for."""
    from curate.dataset import new_dataset

    wanted: dict[str, list[str]] = {}
    for given in classes:
        label, equals, queries = given.partition("=")
        if not equals or not label.strip():
            msg = f"--class {given!r}: write LABEL=QUERY, as in --class cat='cat photo,kitten'"
            raise InputError(msg)
        wanted[label.strip()] = [q.strip() for q in queries.split(",") if q.strip()]
    made = new_dataset(name, wanted, title=title)
    if json:
        _json({"dataset": name, "spec": made.workspace.spec_path, "classes": wanted})
        return
    _say(f"Made {made.workspace.spec_path}. Look at it, then: curate scrape {name}")


@app.command()
def scrape(
    name: Name,
    engine: Annotated[list[Engine] | None, typer.Option(help="instead of the spec's; can be repeated")] = None,
    limit: Annotated[int | None, typer.Option(help="kept images per class, instead of the spec's")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="ask again for what is settled")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be fetched; writes nothing")] = False,
    json: Json = False,
) -> None:
    """Search for images of every class and fetch them; goes on where the last run stopped."""
    from curate.demo import loop
    from curate.scraping_view import live, yield_lines

    options: dict[str, Any] = {
        "engines": [e.value for e in engine or []] or None,
        "limit": limit,
        "refresh": refresh,
    }
    with _dataset(name, json=True) as dataset:
        if dry_run:
            _planned(loop.preview(dataset, **options) if loop.is_sample(dataset) else dataset.preview(**options), json)
            return
        with live(quiet=json) as watch:
            options["watch"] = watch
            record = loop.scrape(dataset, **options) if loop.is_sample(dataset) else dataset.scrape(**options)[0]
    if json:
        _json({"dataset": dataset.name, **record.facts, "seconds": record.seconds})
        return
    facts = record.facts
    for line in yield_lines(facts["yields"]):
        _say(line)
    _say(f"{facts['new']} new images from {facts['asked']} addresses in {record.seconds:.1f} s.")
    for label, kept in facts["kept"].items():
        _say(f"  {label}: {kept}")
    for advice in facts["advice"]:
        _say(advice)
    if any(facts["kept"].values()):
        _say(f"Next: curate audit {name}")


def _planned(made: Preview, json: bool) -> None:
    if json:
        _json(made)
        return
    for planned in made.planned:
        _say(f"{planned.label}\t{planned.engine}\t{planned.query}\t{visible(planned.hit.url)}")
    _say(f"{len(made.planned)} addresses would be asked for first; nothing was written.")
    for advice in made.advice:
        _say(advice)


@app.command()
def purge(
    name: Name,
    image: Annotated[str, typer.Option(help="path as in the manifest")],
    why: Annotated[str, typer.Option(help="the reason, for the tombstone")],
    json: Json = False,
) -> None:
    """Take an image down: remove its bytes for good, and keep every later scrape and import from them."""
    with _dataset(name, json=True) as dataset:
        made = dataset.purge(image, why=why)
    if json:
        _json(made)
        return
    _say(f"{made.sha256[:16]} is taken down: {', '.join(made.paths)}")
    for place in made.removed:
        _say(f"  removed  {place}")
    for place in made.elsewhere:
        _say(f"  still has it, and was not touched: {place}")
    for path in made.near:
        _say(f"  looks like it, and is still there: {path}")
    _say(f"It will not come back. Next: curate audit {name}, curate report {name}, and export again.")


@app.command("import")
def import_images(
    name: Name,
    source: Annotated[Path, typer.Argument(help="a folder with one sub-folder per class, or a CSV file")],
    format: Annotated[ImportFormat, typer.Option(help="what the source is")] = ImportFormat.auto,
    split: Annotated[str | None, typer.Option(help="split of all images, as in --split holdout")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="copy the bytes instead of linking")] = False,
    image_column: Annotated[str | None, typer.Option(help="CSV: column with the image's path")] = None,
    label_column: Annotated[str | None, typer.Option(help="CSV: column with the class")] = None,
    split_column: Annotated[str | None, typer.Option(help="CSV: column with the split")] = None,
    root: Annotated[Path | None, typer.Option(help="CSV: folder that paths are relative to")] = None,
    json: Json = False,
) -> None:
    """Take images that are there already into a data set; makes NAME where it does not exist."""
    from curate.dataset import new_dataset
    from curate.errors import DatasetNotFound

    if not source.exists():
        msg = f"{source} is not there. Give a folder with one sub-folder per class, or a CSV file."
        raise InputError(msg)
    try:
        with _dataset(name, json=json):
            pass
    except DatasetNotFound:
        new_dataset(name)
    with _dataset(name, json=json) as dataset:
        made = dataset.import_images(
            source, format=format.value, split=split, copy=copy,
            image_column=image_column, label_column=label_column, split_column=split_column, root=root,
        )  # fmt: skip
    if json:
        _json({"dataset": dataset.name, **asdict(made)})
        return
    _say(
        f"{made.added} images new or changed, {made.unchanged} as before, {made.unreadable} unreadable, "
        f"{made.missing} missing." + (f" {made.purged} were taken down before and stay out." if made.purged else "")
    )
    for label, n in made.labels.items():
        _say(f"  {label}: {n}")
    _say(f"Next: curate audit {name}")


@app.command()
def status(name: Name, json: Json = False) -> None:
    """What there is of a data set, and what comes next."""
    with _dataset(name, json=True) as dataset:
        workspace = dataset.workspace
        records = dataset.records
        facts: dict[str, Any] = {"dataset": dataset.name, "folder": workspace.root, "stages": {}}
        for stage, record in records.items():
            facts["stages"][stage] = {"finished_at": record.finished_at, "seconds": record.seconds}
        if workspace.has_table("manifest"):
            view = dataset.clean
            facts["images"] = view.counts
            facts["conflicts"], facts["orphans"] = view.conflicts, list(view.orphans)
            facts["stale_decisions"] = len(view.folded.stale)
            if workspace.has_table("queue"):
                from curate.report.worth import outlook

                facts["review"] = outlook(dataset.queue, view)
            facts["labels"] = dict(view.images["label"].value_counts(sort=True).iter_rows())
        if workspace.has_table("findings"):
            facts["findings"] = dict(dataset.findings["check"].value_counts(sort=True).iter_rows())
        facts["scraped"] = _plain(dataset.yields)
        if "retrain" in records:
            facts["accuracy"] = {k: records["retrain"].facts[k] for k in ("raw", "curated", "difference", "ci95")}
        has_images = workspace.has_table("manifest")
        decided = bool(dataset.decisions.decisions)
    following = next(
        step for missing, step in (
            (not has_images, f"curate scrape {name}   or   curate import {name} SOURCE"),
            ("audit" not in records, f"curate audit {name}"), (not decided, f"curate review {name}"),
            ("retrain" not in records, f"curate retrain {name}"), ("report" not in records, f"curate report {name}"),
            (True, f"curate export {name} --format imagefolder --to FOLDER"),
        ) if missing
    )  # fmt: skip
    facts["next"] = following
    if json:
        _json(facts)
        return
    _say(f"{dataset.name}  ({workspace.root})")
    for why, n in facts.get("images", {}).items():
        _say(f"  {n:>7}  {_why(why)}")
    for check, n in facts.get("findings", {}).items():
        _say(f"  {n:>7}  found by {check}")
    if facts.get("conflicts"):
        _say(f"  {len(facts['conflicts'])} images with contradicting decisions, first {facts['conflicts'][0]}")
    if facts.get("review"):
        _say(f"  {facts['review'].words()}")
    if facts.get("stale_decisions"):
        _say(
            f"  {facts['stale_decisions']} decisions on bytes that changed since: curate decide {name} --retract-stale"
        )
    if "accuracy" in facts:
        _say("  " + _gain(records["retrain"].facts))
    if facts["scraped"]:
        from curate.scraping_view import yield_lines

        _say("\nScraped, in all runs:")
        for line in yield_lines(facts["scraped"]):
            _say(line)
    _say(f"Next: {following}")


def _why(why: str) -> str:
    from curate.resolve import WHY

    return WHY[why]


@app.command()
def doctor(json: Json = False) -> None:
    """Whether everything that is needed is there, and how to mend what is not."""
    from curate.doctor import checks

    results = checks()
    if json:
        _json({"ok": all(check.ok for check in results), "checks": results})
    else:
        for check in results:
            _say(f"{'ok     ' if check.ok else 'MISSING' if check.required else 'absent '} {check.name}: {check.found}")
            if not check.ok and check.remedy:
                _say(f"        {check.remedy}")
    if any(not check.ok and check.required for check in results):
        raise typer.Exit(3)


@app.command()
def measure(name: Name, runner: Runner = RunnerOption.local, json: Json = False) -> None:
    """Hashes and quality figures, one decode per image."""
    with _dataset(name, json=json, runner=runner) as dataset:
        record = dataset.measure()
    _json(record) if json else _say(_told(record))


@app.command()
def dedupe(
    name: Name,
    thorough: Annotated[
        bool | None,
        typer.Option(
            "--thorough/--no-thorough",
            help="also crops, turns, mirror images, frames, captions, watermarks; remembered for this data set",
        ),
    ] = None,
    runner: Runner = RunnerOption.local,
    json: Json = False,
) -> None:
    """Group exact and near-duplicates, each candidate verified on its pixels."""
    with _dataset(name, json=json, runner=runner) as dataset:
        record = dataset.dedupe(thorough=thorough)
        found, still = dataset.findings, dataset.open_findings
    # What contradicts a label or spoils the holdout comes first.
    order = ("duplicates:conflict", "leakage", "duplicates:orphan", "duplicates:exact", "duplicates:near")
    counts, left = (dict(table["check"].value_counts().iter_rows()) for table in (found, still))
    named = {check: counts[check] for check in order if check in counts}
    if json:
        _json(vars(record) | {"counts": named, "open": {check: left.get(check, 0) for check in named}})
        return
    _say(_told(record))
    for check, n in named.items():
        settled = n - left.get(check, 0)
        _say(f"  {n:>6}  {check}" + (f"   {settled} settled by decisions" if settled else ""))
        examples = still.filter(still["check"] == check).head(3)
        for path, reason in examples.select("path", "reason").iter_rows():
            _say(f"            {path}: {reason}")
    if not named:
        harder = "" if record.facts.get("thorough") else f" Look harder: curate dedupe {name} --thorough"
        _say(f"No duplicates.{harder}")
        return
    kinds = [check for check in order[3:] if check in left]
    _say("Nothing was dropped." + (" Suggestions:" if kinds else ""))
    for check in kinds:
        _say(f"  curate contact-sheet {name} --check {check}   look, then   curate decide {name} --accept {check}")
    if "duplicates:conflict" in left:
        _say(f"  curate review {name}   which label is right, or neither")


@app.command()
def audit(
    name: Name,
    mode: Annotated[AuditMode | None, typer.Option(help="instead of the spec's; auto: finetune on a GPU")] = None,
    runner: Runner = RunnerOption.local,
    json: Json = False,
) -> None:
    """Judge every label by a model that did not see the image, and queue what to look at."""
    with _dataset(name, json=json, runner=runner) as dataset:
        records = dataset.audit(mode=cast(Any, mode.value if mode else None))
    if json:
        _json({record.stage: record for record in records})
        return
    for record in records:
        _say(_told(record))
    for note in [*records[1].facts["notes"], *records[2].facts.get("notes", ())]:
        _say(f"note: {note}")
    _say(f"Next: curate review {name}   (or without a database: curate contact-sheet {name})")


@app.command()
def findings(
    name: Name,
    check: Annotated[str | None, typer.Option(help="only this check")] = None,
    top: Annotated[int, typer.Option(help="how many to print")] = 20,
    csv: Annotated[Path | None, typer.Option(help="write all of them to this file")] = None,
    fail_on: Annotated[
        list[str] | None, typer.Option(help="CHECK or CHECK>N: exit 1 if it has more than N findings")
    ] = None,
    json: Json = False,
) -> None:
    """What was found, worst first; --fail-on makes it a test for CI, of what no decision has settled."""
    import polars as pl

    with _dataset(name, json=True) as dataset:
        found = dataset.findings
        still: dict[str, int] = dict(dataset.open_findings["check"].value_counts().iter_rows())
    if check:
        found = found.filter((pl.col("check") == check) | pl.col("check").str.starts_with(f"{check}:"))
    counts: dict[str, int] = dict(sorted(found["check"].value_counts().iter_rows()))
    if csv:
        from curate.workspace import write_bytes

        write_bytes(csv, found.write_csv().encode())
    failed = []
    for rule in fail_on or []:
        wanted, _, number = rule.partition(">")
        if number and not number.strip().isdecimal():
            msg = f"--fail-on {rule!r}: write CHECK or CHECK>N"
            raise InputError(msg)
        n = sum(count for name_, count in still.items() if name_ == wanted or name_.startswith(f"{wanted}:"))
        if n > int(number or 0):
            failed.append(f"{wanted}: {n} findings that no decision has settled, more than {int(number or 0)}")
    if json:
        _json({"counts": counts, "open": still, "findings": found.head(top).to_dicts(), "failed": failed})
    else:
        for kind, n in counts.items():
            settled = n - still.get(kind, 0)
            _say(f"{n:>7}  {kind}" + (f"   {settled} settled by decisions" if settled else ""))
        for row in found.sort("score", "path").head(top).iter_rows(named=True):
            _say(f"\n{row['path']}\n  {row['check']}: {row['reason']}")
        for reason in failed:
            _say(f"\nfailed: {reason}")
    if failed:
        raise typer.Exit(1)


@app.command()
def review(
    name: Name,
    port: Annotated[int, typer.Option(help="of the App on 127.0.0.1", min=1, max=65535)] = 5151,
    budget: Annotated[
        int | None, typer.Option(help="how many of the queue to show, instead of the spec's", min=1)
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="open the browser of this machine")] = False,
    json: Json = False,
) -> None:
    """Look at what was found and decide, in the FiftyOne App; every click is a line in decisions.jsonl."""
    with _dataset(name, json=True) as dataset:
        before = len(dataset.decisions.decisions)

        def ready(address: str) -> None:
            if json:
                _json({"address": address})
                sys.stdout.flush()
                return
            _say(f"The App is at {address} (Ctrl-C ends it; what was decided is saved at once).")
            _say("Saved views at the top left: 'to review' is the queue. Select images, then decide above the grid.")

        dataset.review(port=port, budget=budget, open_browser=open_browser, on_ready=ready)
        made = len(dataset.decisions.decisions) - before
    if not json:
        _say(f"{made} decisions were made. Next: curate retrain {name}")


@app.command("contact-sheet")
def contact_sheet(
    name: Name,
    check: Annotated[str | None, typer.Option(help="only this check")] = None,
    top: Annotated[int, typer.Option(help="findings per check")] = 100,
    out: Annotated[Path | None, typer.Option(help="the page to write")] = None,
    json: Json = False,
) -> None:
    """The findings as one web page that needs no database and no server."""
    with _dataset(name, json=True) as dataset:
        page = dataset.contact_sheet(check=check, top=top, out=out)
    _json({"page": page}) if json else _say(
        f"{page}\nIts form makes decisions.csv, for: curate decide {name} --from FILE"
    )


@app.command()
def decide(
    name: Name,
    image: Annotated[list[str] | None, typer.Option(help="path as in the manifest; can be repeated")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="it belongs to the data set")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="it does not belong to it")] = False,
    relabel: Annotated[str | None, typer.Option(metavar="LABEL", help="its true class")] = None,
    dismiss: Annotated[str | None, typer.Option(metavar="CHECK", help="the finding is wrong")] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK[:KIND]", help="do what the check suggests, for all; can be repeated"),
    ] = None,
    distinct: Annotated[
        tuple[str, str] | None, typer.Option(metavar="PATH PATH", help="these two images are no duplicates")
    ] = None,
    from_file: Annotated[Path | None, typer.Option("--from", help="CSV: path, decision, label, other")] = None,
    retract_stale: Annotated[
        bool, typer.Option("--retract-stale", help="retire decisions on bytes that changed")
    ] = False,
    why: Annotated[str | None, typer.Option(help="the reason, for the log")] = None,
    json: Json = False,
) -> None:
    """Decide on images; every decision can be undone."""
    from curate.decisions import LABEL, MEMBERSHIP, Value, fold

    given = [
        keep,
        drop,
        relabel is not None,
        dismiss is not None,
        bool(accept),
        distinct is not None,
        from_file is not None,
        retract_stale,
    ]
    if sum(given) != 1:
        msg = "give exactly one of --keep, --drop, --relabel, --dismiss, --accept, --distinct, --from, --retract-stale"
        raise InputError(msg)
    if any(given[:4]) != bool(image):
        msg = "--keep, --drop, --relabel and --dismiss need --image PATH; the others take none"
        raise InputError(msg)
    with _dataset(name, json=True) as dataset:
        if accept:
            made = dataset.accept(*accept, why=why)
        elif distinct is not None:
            made = dataset.tell_apart(*distinct, why=why)
        elif from_file is not None:
            made = dataset.decide_from(from_file)
        elif retract_stale:
            stale = fold(dataset.decisions, dataset.manifest).stale
            if stale:
                dataset.undo(ids=[d.decision_id for d in stale])
            _json({"retracted": len(stale)}) if json else _say(f"{len(stale)} stale decisions retired.")
            return
        else:
            choice: tuple[str, Value] = (MEMBERSHIP, "in" if keep else "out")
            if relabel is not None:
                choice = (LABEL, relabel)
            elif dismiss is not None:
                choice = (f"finding:{dismiss}", "dismissed")
            made = dataset.decide([(path, *choice) for path in image or []], check=dismiss, why=why)
    if json:
        _json({"made": [d.decision_id for d in made], "batch": made[0].batch if made else None})
        return
    batch = f" (batch {made[0].batch}: curate undo {name} --batch {made[0].batch})" if made and made[0].batch else ""
    _say(f"{len(made)} decisions written{batch}." if made else "Nothing to do: it was decided so already.")


@app.command()
def undo(
    name: Name,
    decision: Annotated[str | None, typer.Argument(metavar="ID", help="a decision")] = None,
    batch: Annotated[str | None, typer.Option(help="a bulk action")] = None,
    last: Annotated[bool, typer.Option("--last", help="what was done last")] = False,
    json: Json = False,
) -> None:
    """Take decisions back; undoing an undo brings them into force again."""
    if sum([decision is not None, batch is not None, last]) != 1:
        msg = "give exactly one of ID, --batch B, --last; `curate log` lists them"
        raise InputError(msg)
    with _dataset(name, json=True) as dataset:
        undone = dataset.undo(ids=[decision] if decision else [], batch=batch, last=last)
    count = len(undone.retraction.ids) if undone.retraction else 0
    if json:
        _json(
            {"undone": undone.retraction.ids if undone.retraction else [], "kept": [d.decision_id for d in undone.kept]}
        )
        return
    _say(f"{count} undone." + (f" {len(undone.kept)} stay: they were decided on again since." if undone.kept else ""))


@app.command()
def log(
    name: Name,
    image: Annotated[str | None, typer.Option(help="only of this image, with where it came from")] = None,
    top: Annotated[int, typer.Option(help="newest decisions to print")] = 30,
    json: Json = False,
) -> None:
    """Who decided what and when; with --image, the whole chain of one image."""
    from curate.workspace import read_log

    with _dataset(name, json=True) as dataset:
        held = dataset.decisions
        alive = held.alive()
        lines = [d.to_line() | {"in_force": ident in alive} for ident, d in held.decisions.items()]
        lines += [r.to_line() | {"in_force": ident in alive} for ident, r in held.retractions.items()]
        sources: list[dict[str, Any]] = []
        if image is not None:
            if image not in set(dataset.manifest["path"].to_list()):
                msg = f"no image {image!r} in the manifest of {name!r}. `curate findings` lists paths."
                raise InputError(msg)
            mine = {ident for ident, d in held.decisions.items() if d.path == image}
            lines = [x for x in lines if x.get("path") == image or mine & set(x.get("ids", ()))]
            obtained = read_log(dataset.workspace.sources).records
            sources = [s for s in obtained if s.get("path") == image]
            purged = [s for s in obtained if s.get("kind") == "tombstone" and image in s.get("paths", ())]
            chain = _chain(dataset, image)
    lines.sort(key=lambda line: line["decided_at"], reverse=True)
    if json:
        _json(
            {"decisions": lines, "sources": sources, "rejected_lines": list(held.rejected)}
            | (chain | {"purged": purged} if image else {})
        )
        return
    for source in sources:
        by = f"{source.get('engine') or source['origin']}  {source.get('query') or ''}"
        _say(f"obtained  {source.get('at', '')}  {by}  {source['url']}")
    if image is not None:
        for stone in purged:
            _say(f"purged    {stone['at']}  {stone['by']}  {stone['why']}")
        for told in chain["findings"]:
            _say(f"found     {told['check']}: {told['reason']}")
        _say(f"now       {chain['why']}, label {chain['label']}")
    for line in lines[:top]:
        what = (
            "undid " + ", ".join(line["ids"][:3])
            if line["kind"] == "retract"
            else f"{line['path']}  {line['aspect']} = {line['value']}"
        )
        _say(
            f"{line['decided_at'][:19]}  {line['decision_id'][:12]}  {line['by']}  {what}"
            + ("" if line["in_force"] else "  (undone)")
        )
    if held.rejected:
        _say(f"{len(held.rejected)} lines of decisions.jsonl are torn or no decisions; they are not applied.")


def _chain(dataset: Dataset, image: str) -> dict[str, Any]:
    import polars as pl

    row = dataset.clean.rows.filter(pl.col("path") == image).to_dicts()[0]
    found = []
    if dataset.workspace.has_table("findings"):
        found = dataset.findings.filter(pl.col("path") == image).select("check", "score", "reason").to_dicts()
    return {"findings": found, "why": _why(row["why"]), "label": row["label"], "included": row["included"]}


@app.command()
def holdout(
    name: Name,
    n: Annotated[int, typer.Option("--n", help="how many images", min=1)],
    seed: Annotated[int, typer.Option(help="of the draw")] = 0,
    json: Json = False,
) -> None:
    """Set images apart to measure on, the same number of each class; then review their labels."""
    with _dataset(name, json=json) as dataset:
        chosen = dataset.holdout(n, seed=seed)
    if json:
        _json({"holdout": chosen})
        return
    _say(
        f"{len(chosen)} images set apart. They are trusted from now on: check their labels "
        f"(curate undo {name} --last takes it back)."
    )


@app.command("class")
def class_(
    name: Name,
    action: Annotated[str, typer.Argument(metavar="rename|merge")],
    old: Annotated[str, typer.Argument(metavar="A")],
    new_name: Annotated[str, typer.Argument(metavar="B")],
    json: Json = False,
) -> None:
    """Rename a class, or merge it into another, by decisions that can be undone."""
    from curate.pipeline import classes_of

    if action not in {"rename", "merge"}:
        msg = f"class {action!r}: write `rename A B` or `merge A B`"
        raise InputError(msg)
    with _dataset(name, json=True) as dataset:
        known = classes_of(dataset.spec, dataset.manifest)
        if (new_name in known) != (action == "merge"):
            trouble = "is a class already: use merge" if action == "rename" else f"is no class; there are: {known}"
            msg = f"{new_name!r} {trouble}"
            raise InputError(msg)
        made = dataset.relabel_class(old, new_name)
    batch = made[0].batch if made else None
    if json:
        _json({"relabelled": len(made), "batch": batch})
        return
    _say(f"{len(made)} images of {old} are {new_name} now (curate undo {name} --batch {batch} takes it back).")


@app.command()
def retrain(name: Name, runner: Runner = RunnerOption.local, json: Json = False) -> None:
    """Train the same model on the raw and on the clean data set, and compare on the holdout."""
    with _dataset(name, json=json, runner=runner) as dataset:
        record = dataset.retrain()
    if json:
        _json(record)
        return
    _say(_told(record))
    _say(f"Next: curate report {name}")


@app.command()
def predict(name: Name, images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")], json: Json = False) -> None:
    """Predict images by the model that was trained on the clean data set."""
    with _dataset(name, json=True) as dataset:
        rows = dataset.predict(images).to_dicts()
    if json:
        _json({"predictions": rows})
        return
    for row in rows:
        _say(f"{row['file']}  {row['predicted']}  {row['confidence']:.3f}")


@app.command()
def report(name: Name, json: Json = False) -> None:
    """Write reports/NAME/index.html and report.json."""
    from curate.demo import loop

    with _dataset(name, json=json) as dataset:
        made = loop.report(dataset) if loop.is_sample(dataset) else dataset.report()
    _json({"page": made.page, "json": made.json}) if json else _say(f"{made.page}\n{made.json}")


@app.command()
def export(
    name: Name,
    to: Annotated[Path, typer.Option("--to", help="a new or empty folder, or a former export")],
    format: Annotated[ExportFormat, typer.Option("--format", help="what to write")] = ExportFormat.imagefolder,
    only_reviewed: Annotated[
        bool, typer.Option("--only-reviewed", help="only what a person kept or relabelled")
    ] = False,
    json: Json = False,
) -> None:
    """Write the clean data set to a folder; the same data set gives the same bytes."""
    with _dataset(name, json=json) as dataset:
        made = dataset.export(format=cast(Any, format.value), to=to, only_reviewed=only_reviewed)
    if json:
        _json(made)
        return
    state = "was there already, unchanged" if made.unchanged else "written"
    _say(f"{made.to}: {made.images} images, {state}. Content {made.content[:16]}")


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="an export")], json: Json = False) -> None:
    """Whether an export is still what was written; exit 1 if it is not."""
    from curate.export.write import verify as verify_export

    result = verify_export(folder)
    if json:
        _json(result)
    else:
        for problem in result.problems[:50]:
            _say(problem)
        _say(f"{result.files} files, {len(result.problems)} problems.")
    if result.problems:
        raise typer.Exit(1)


@app.command()
def cache(
    name: Name,
    clear: Annotated[bool, typer.Option("--clear", help="remove it; it is made anew when needed")] = False,
    json: Json = False,
) -> None:
    """The size of what can be thrown away: decoded pictures and finished folds."""
    import shutil

    with _dataset(name, json=True) as dataset:
        folder = dataset.workspace.cache
        size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else 0
        if clear and folder.is_dir():
            with dataset.workspace.stage_lock("cache"):
                shutil.rmtree(folder)
    if json:
        _json({"folder": folder, "bytes": size, "cleared": clear})
        return
    _say(f"{folder}: {size / 1e6:.1f} MB{' removed' if clear else ''}")


@app.command("run")
def run_all(name: Name, runner: Runner = RunnerOption.local, json: Json = False) -> None:
    """Every stage that is not up to date, up to the report; review in between with `curate review`."""
    from curate.demo import loop

    with _dataset(name, json=json, runner=runner) as dataset:
        obtain = (lambda: loop.scrape(dataset, force=False)) if loop.is_sample(dataset) else None
        records = dataset.run(obtain=obtain, done=(lambda _: None) if json else (lambda record: _say(_told(record))))
        page = loop.report(dataset).page if loop.is_sample(dataset) else dataset.report().page
    if json:
        _json({"stages": {r.stage: r for r in records}, "page": page})
        return
    _say(f"Report: {page}")


@app.command()
def demo(runner: Runner = RunnerOption.local, json: Json = False) -> None:
    """The whole loop on the bundled sample: scrape, dedupe, audit, a simulated review, retrain, report, export."""
    from curate.demo import loop
    from curate.progress import showing

    def tell(record: StageRecord) -> None:
        if not json:
            _say(_told(record))

    with showing(json, _progress_line) as progress:
        made = loop.run(runner=cast(Any, runner.value), progress=progress, done=tell)
    if json:
        _json({"report": made.report.data, "page": made.report.page, "export": made.export, "reviewed": made.reviewed})
        return
    _demo_outcome(made.report.data)
    _say(f"\nReport: {made.report.page}\nClean data set: {made.export}\nLook for yourself: curate review {loop.NAME}")


def _demo_outcome(data: Mapping[str, Any]) -> None:
    def figure(value: float | None) -> str:
        return "   –" if value is None else f"{value:.2f}"

    _say("\nplanted fault      planted  found  precision  recall  average precision")
    for fault, row in data["planted"].items():
        shares = f"{figure(row['precision']):>10} {figure(row['recall']):>7}"
        _say(f"{fault:<18} {row['planted']:>7} {row['found']:>6} {shares}"
             f"{figure(row['average_precision']) if 'average_precision' in row else '':>19}")  # fmt: skip
    counts, told, accuracy = data["counts"], data["budget"], data["accuracy"]
    _say(f"\n{data['simulated']}")
    _say(f"Errors: {told['expected_errors']:.0f} expected among the {told['reviewed']} looked at, "
         f"{told['actual_errors']} found; about {told['expected_remaining']:.0f} remain.")  # fmt: skip
    out = ", ".join(f"{n} {_why(why)}" for why, n in counts["out_why"].items())
    _say(f"Images: {counts['obtained']} obtained, {counts['rejected']} addresses rejected; {out}; "
         f"{counts['exported']} in the clean data set, {counts['relabelled']} of them relabelled.")  # fmt: skip
    _say(f"Accuracy: {_gain(accuracy)}")


def _fail(error: CurateError) -> int:
    typer.echo(visible(f"curate: {error}", keep="\n\t"), err=True)
    return error.exit_code


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    code: Any = 0
    try:
        code = app(arguments, standalone_mode=False, prog_name="curate")
    except CurateError as error:
        code = _fail(error)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("curate: interrupted; nothing is lost, run it again to go on.", err=True)
        code = 130
    except BrokenPipeError:
        # Whoever read our output has gone (`curate findings | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        shown = getattr(error, "show", None)  # usage errors of the command line know how to show themselves
        if shown is None:
            raise
        shown()
        code = getattr(error, "exit_code", 2)
    sys.exit(code if isinstance(code, int) else 0)
