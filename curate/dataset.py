"""A data set as scripts, notebooks and the command line use it: every verb is one method.

Past 400 lines because all verbs stand in one place, as people look for them on one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from curate import apart, decisions, pipeline, suggestions
from curate.config import CLASS_NAME, Spec, parse_spec
from curate.decisions import LABEL, MEMBERSHIP, Decision, DecisionLog, Undone, Value
from curate.errors import InputError, StageNotReady
from curate.pipeline import Progress, StageRecord, quiet
from curate.resolve import CleanView
from curate.runner import RunnerName
from curate.schema import GROUPS, HOLDOUT
from curate.workspace import Workspace, file_digest, read_log

if TYPE_CHECKING:
    from curate.acquire.history import Yield
    from curate.acquire.importers import ImportSummary
    from curate.acquire.preview import Preview
    from curate.acquire.purge import Purged
    from curate.acquire.scrape import ScrapeSummary
    from curate.export.write import ExportResult
    from curate.report.build import Report


@dataclass(frozen=True)
class Dataset:
    """One data set: its tables, its decisions, and the stages that make them.

    Attributes:
        workspace: its folder.
        runner: where the heavy stages run, `local` or `ray`.
        progress: told what is being done: (stage, what, done, total).
    """

    workspace: Workspace
    runner: RunnerName = "local"
    progress: Progress = quiet

    @property
    def name(self) -> str:
        """Its name."""
        return self.workspace.name

    @property
    def spec(self) -> Spec:
        """What curate.toml says now."""
        return self.workspace.spec()

    @property
    def manifest(self) -> pl.DataFrame:
        """One row per image, schema `MANIFEST`. Raises `StageNotReady` before anything was measured."""
        return self.workspace.read_table("manifest")

    @property
    def features(self) -> pl.DataFrame:
        """Hashes and quality figures, schema `FEATURES`."""
        return self.workspace.read_table("features")

    @property
    def groups(self) -> pl.DataFrame:
        """Groups of duplicates, schema `GROUPS`."""
        return self.workspace.read_table("groups")

    @property
    def embeddings(self) -> pl.DataFrame:
        """Embeddings, schema `EMBEDDINGS`."""
        return self.workspace.read_table("embeddings")

    @property
    def predictions(self) -> pl.DataFrame:
        """Out-of-fold predictions, schema `PREDICTIONS`."""
        return self.workspace.read_table("predictions")

    @property
    def findings(self) -> pl.DataFrame:
        """What the checks found, schema `FINDINGS`."""
        return self.workspace.read_table("findings")

    @property
    def queue(self) -> pl.DataFrame:
        """What to look at, in order, schema `QUEUE`."""
        return self.workspace.read_table("queue")

    @property
    def decisions(self) -> DecisionLog:
        """The log of decisions."""
        return decisions.read(self.workspace.decisions)

    @property
    def clean(self) -> CleanView:
        """The clean data set as the decisions make it now."""
        return pipeline.clean_view(self.workspace)

    @property
    def records(self) -> dict[str, StageRecord]:
        """What finished stages left, by name."""
        return pipeline.records(self.workspace)

    def scrape(
        self, *, engines: Sequence[str] | None = None, limit: int | None = None, refresh: bool = False,
        endpoints: Mapping[str, str] | None = None, force: bool = True, go_on: bool = True,
        watch: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> tuple[StageRecord, ScrapeSummary | None]:  # fmt: skip
        """Obtain images from search engines, see `curate.acquire.scrape`.

        `force=False` skips it where it finished before with the same classes, settings and list of URLs; but not, with
        `go_on`, where a class is below its limit and something that may pass was in the way. The summary is None then.
        `watch` is told of every attempt, instead of `progress`.
        """
        from curate.acquire.scrape import list_of_urls, scrape

        spec = self.spec
        summary: list[ScrapeSummary] = []
        told: dict[str, int] = {}

        def progress(event: Mapping[str, Any]) -> None:
            told[event["label"]] = event["kept"]
            if watch:
                watch(event)
                return
            self.progress("scrape", f"images of {event['label']}", event["kept"], event["limit"])

        def work() -> dict[str, Any]:
            made = scrape(
                self.workspace, spec, engines=engines, limit=limit, refresh=refresh, progress=progress,
                endpoints=endpoints,
            )  # fmt: skip
            summary.append(made)
            return {
                "kept": dict(made.kept), "asked": made.asked, "new": made.new, "advice": list(made.advice),
                "stopped": made.stopped, "unfinished": made.unfinished, "yields": [asdict(y) for y in made.yields],
            }  # fmt: skip

        last = self.records.get("scrape")
        force = force or bool(last and last.facts.get("unfinished" if go_on else "stopped"))
        classes = [c.model_dump(mode="json", exclude={"title"}) for c in spec.classes]
        asked = spec.scrape.model_dump(mode="json", exclude={"threads", "timeout", "retries"})
        listed = list_of_urls(self.workspace, spec, engines or spec.scrape.engines, endpoints)
        inputs = [classes, asked, list(engines or ()), limit, file_digest(listed) if listed else None]
        with self.workspace.stage_lock("scrape"):
            record = pipeline.run_stage(self.workspace, "scrape", inputs, [], work, force=force)
            if (
                summary
                and (summary[0].new or not self.workspace.has_table("manifest"))
                and any(summary[0].kept.values())
            ):
                pipeline.scan(self.workspace, progress=self.progress)
        return record, summary[0] if summary else None

    def preview(
        self, *, engines: Sequence[str] | None = None, limit: int | None = None, refresh: bool = False,
        endpoints: Mapping[str, str] | None = None,
    ) -> Preview:  # fmt: skip
        """What `scrape` would fetch; writes nothing, see `curate.acquire.preview`."""
        from curate.acquire.preview import preview

        return preview(
            self.workspace, self.spec, engines=engines, limit=limit, refresh=refresh, endpoints=endpoints
        )  # fmt: skip

    @property
    def yields(self) -> tuple[Yield, ...]:
        """What every engine gave for every query and class in all runs, from sources.jsonl."""
        from curate.acquire.history import yields

        return yields(read_log(self.workspace.sources).records)

    def purge(self, path: str, *, why: str) -> Purged:
        """Remove the bytes of an image for good and leave a tombstone, see `curate.acquire.purge`.

        Raises:
            InputError: there is no such image, or no reason is given.
        """
        from curate.acquire.purge import purge

        with self.workspace.stage_lock("purge"):
            made = purge(self.workspace, pipeline.scan(self.workspace), path, why=why)
            pipeline.scan(self.workspace)
        return made

    def import_images(
        self, source: Path, *, format: Literal["auto", "folder", "csv"] = "auto", name: str | None = None,
        split: str | None = None, copy: bool = False, image_column: str | None = None,
        label_column: str | None = None, split_column: str | None = None, root: Path | None = None,
    ) -> ImportSummary:  # fmt: skip
        """Take images that are there already into the data set, see `curate.acquire.importers`.

        Raises:
            InputError: the source is not there or of no known format.
        """
        from curate.acquire.importers import import_csv, import_folder

        if not source.exists():
            msg = f"{source} is not there. Give a folder with one sub-folder per class, or a CSV file."
            raise InputError(msg)
        kind = format if format != "auto" else "folder" if source.is_dir() else "csv"
        if kind == "csv" and source.is_dir():
            msg = f"{source} is a folder, not a CSV file."
            raise InputError(msg)
        called = name or (source.name if kind == "folder" else source.stem)
        with self.workspace.stage_lock("import"):
            if kind == "folder":
                made = import_folder(self.workspace, source, name=called, split=split, copy=copy)
            else:
                made = import_csv(
                    self.workspace, source, name=called, image_column=image_column, label_column=label_column,
                    split_column=split_column, root=root, split=split, copy=copy,
                )  # fmt: skip
            pipeline.scan(self.workspace, progress=self.progress)
        return made

    def measure(self) -> StageRecord:
        """Compute hashes and quality figures of every image that has none yet."""
        with self.workspace.stage_lock("measure"):
            return pipeline.run_measure(self.workspace, runner=self.runner, progress=self.progress)

    def dedupe(self, *, thorough: bool | None = None) -> StageRecord:
        """Group exact and near-duplicates, and write what the checks on tables find so far."""
        with self.workspace.stage_lock("dedupe"):
            made = pipeline.run_dedupe(self.workspace, thorough=thorough, runner=self.runner, progress=self.progress)
            pipeline.run_checks(self.workspace, progress=self.progress)
            return made

    def audit(self, *, mode: Literal["auto", "probe", "finetune"] | None = None) -> list[StageRecord]:
        """Predict every image out of fold, run all checks, and put what they find into a queue."""
        with self.workspace.stage_lock("audit"):
            return pipeline.run_audit(self.workspace, mode=mode, runner=self.runner, progress=self.progress)

    def run(
        self, *, obtain: Callable[[], StageRecord] | None = None, done: Callable[[StageRecord], object] = lambda _: None
    ) -> list[StageRecord]:  # fmt: skip
        """Run every stage that is not up to date: scrape, measure, dedupe, audit, retrain.

        Scraping is left out where the spec has neither a query nor a list of URLs, training where there is no holdout.

        Args:
            obtain: does the scraping, instead of `scrape(force=False)`.
            done: told of every stage that is finished, skipped ones included.
        """
        records: list[StageRecord] = []

        def finished(*made: StageRecord) -> None:
            for record in made:
                records.append(record)
                done(record)

        spec = self.spec
        if obtain or any(c.queries for c in spec.classes) or (spec.classes and "urls" in spec.scrape.engines):
            finished(obtain() if obtain else self.scrape(force=False)[0])
        finished(self.measure())
        finished(*self.audit())
        if self.manifest.filter(pl.col("split") == HOLDOUT).height:
            finished(self.retrain())
        return records

    def review(
        self, *, port: int = 5151, budget: int | None = None, open_browser: bool = False,
        on_ready: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        """Serve the FiftyOne App on the findings until Ctrl-C; its buttons append to decisions.jsonl.

        It opens on the first `budget` images of the queue that nobody decided on.

        Raises:
            StageNotReady: there are no findings yet.
            EnvironmentMissing: MongoDB does not run, or the port is in use.
        """
        self._want_findings()
        from curate.review import app

        limit = budget or self.spec.review.budget
        folded = decisions.fold(self.decisions, self.manifest)
        decided = pl.col("path").is_in(list({path for path, _ in folded.heads}))
        open_places = (~decided).cum_sum()
        app.launch(
            self.workspace, manifest=self.manifest, findings=self.findings,
            predictions=pipeline.optional(self.workspace, "predictions"),
            queue=self.queue.sort("rank").filter(decided | (open_places <= limit)), decisions_log=self.decisions,
            port=port, open_browser=open_browser, on_ready=on_ready,
        )  # fmt: skip

    def contact_sheet(self, *, check: str | None = None, top: int = 100, out: Path | None = None) -> Path:
        """Write the findings as one web page that needs no server, see `curate.review.contact_sheet`."""
        self._want_findings()
        from curate.review.contact_sheet import write_contact_sheet

        return write_contact_sheet(
            self.workspace, manifest=self.manifest, findings=self.findings,
            predictions=pipeline.optional(self.workspace, "predictions"), decisions_log=self.decisions, check=check,
            top=top, out=out,
        )  # fmt: skip

    def _want_findings(self) -> None:
        if not self.workspace.has_table("findings"):
            msg = f"data set {self.name!r} has no findings yet: run `curate audit {self.name}` first."
            raise StageNotReady(msg)

    def decide(
        self, choices: Iterable[tuple[str, str, Value]], *, check: str | None = None, batch: str | None = None,
        why: str | None = None, by: str | None = None, scope: Literal["row", "bytes"] = "row",
    ) -> list[Decision]:  # fmt: skip
        """Append decisions, see `curate.decisions.decide`. Needs no stage lock: several people can review at once.

        Raises:
            InputError: an image is unknown, or a label is no class of the data set.
        """
        choices = list(choices)
        classes = pipeline.classes_of(self.spec, self.manifest)
        for _, aspect, value in choices:
            if aspect == LABEL and value not in classes and not self._is_new_class(str(value)):
                msg = f"{value!r} is no class of {self.name!r}: {', '.join(classes)}. Add it to curate.toml first."
                raise InputError(msg)
        return decisions.decide(
            self.workspace.decisions, self.manifest, choices, check=check, batch=batch, why=why, by=by, scope=scope
        )

    def _is_new_class(self, name: str) -> bool:
        labels = {str(d.value) for d in self.decisions.decisions.values() if d.aspect == LABEL}
        return name in labels

    def accept(self, *checks: str, by: str | None = None, why: str | None = None) -> list[Decision]:
        """Do what checks suggest for all their findings that nobody decided on: one batch, so one undo takes it back.

        Duplicates go in favour of the image that stays (never of one that is out, and never all of a group), labels
        become the suggested class; images for which nothing is suggested are dropped. Dismissed findings are left
        alone.

        Raises:
            InputError: a check has no findings.
        """
        parts = []
        for check in checks:
            mine = self.findings.filter((pl.col("check") == check) | pl.col("check").str.starts_with(f"{check}:"))
            if not mine.height:
                have = ", ".join(self.findings["check"].unique().sort().to_list()) or "none"
                msg = f"there are no findings of {check!r} to accept; there are: {have}"
                raise InputError(msg)
            parts.append(mine)
        found = pl.concat(parts) if parts else self.findings.clear()
        triples = suggestions.choices(found, self.clean, self._groups_or_none())
        return self.decide(triples, check=checks[0] if len(checks) == 1 else None, by=by, why=why)

    def _groups_or_none(self) -> pl.DataFrame:
        found = pipeline.optional(self.workspace, "groups")
        return GROUPS.empty() if found is None else found

    @property
    def open_findings(self) -> pl.DataFrame:
        """The findings that no decision has settled yet, see `curate.suggestions.open_findings`."""
        return suggestions.open_findings(self.findings, self.clean, self._groups_or_none())

    def tell_apart(self, path: str, other: str, *, why: str | None = None) -> list[Decision]:
        """Decide that two images are no duplicates: from the next dedupe on they, and their bytes, never group.

        Raises:
            InputError: an image is not in the manifest, or both have the same bytes.
        """
        return self.decide([apart.tell_apart(self.manifest, path, other)], why=why)

    def decide_from(self, table: Path, *, by: str | None = None) -> list[Decision]:
        """Append the decisions of a CSV: `path, decision (keep|drop|relabel|distinct), label` or `other` (a path).

        Raises:
            InputError: the file or a column is missing, or a row says something else; nothing is appended then.
        """
        try:
            rows = pl.read_csv(table, infer_schema_length=0)
        except (OSError, pl.exceptions.PolarsError) as error:
            msg = f"{table} cannot be read as CSV: {error}"
            raise InputError(msg) from error
        if missing := {"path", "decision"} - set(rows.columns):
            msg = f"{table} has no column {sorted(missing)[0]!r}: wanted are path, decision and label."
            raise InputError(msg)
        choices: list[tuple[str, str, Value]] = []
        for number, row in enumerate(rows.iter_rows(named=True), start=2):
            said, label = (row["decision"] or "").strip(), (row.get("label") or "").strip()
            if said in {"keep", "drop"}:
                choices.append((row["path"], MEMBERSHIP, "in" if said == "keep" else "out"))
            elif said == "relabel" and label:
                choices.append((row["path"], LABEL, label))
            elif said == "distinct" and row.get("other"):
                choices.append(apart.tell_apart(self.manifest, row["path"], row["other"].strip()))
            elif said:
                msg = (
                    f"{table}, row {number}: {said!r} with label {label!r}: write keep, drop, relabel and a class, "
                    "or distinct and the path of the other image in the column `other`"
                )
                raise InputError(msg)
        return self.decide(choices, by=by)

    def undo(self, *, ids: Sequence[str] = (), batch: str | None = None, last: bool = False) -> Undone:
        """Take decisions back, see `curate.decisions.undo`."""
        return decisions.undo(self.workspace.decisions, ids=ids, batch=batch, last=last)

    def holdout(self, n: int, *, seed: int = 0) -> list[str]:
        """Set n images apart as holdout, as decisions that can be undone; their paths."""
        with self.workspace.stage_lock("holdout"):
            pipeline.scan(self.workspace)
            chosen = pipeline.set_holdout(self.workspace, n, seed=seed)
            pipeline.scan(self.workspace)
        return chosen

    def relabel_class(self, old: str, new: str) -> list[Decision]:
        """Give every image whose label is `old` the label `new` (rename or merge), as one batch that can be undone.

        Raises:
            InputError: no image has the label `old`, or `new` cannot be a class name.
        """
        if not CLASS_NAME.fullmatch(new):
            msg = f"{new!r} cannot be a class name: use letters, digits, space, . _ + -"
            raise InputError(msg)
        rows = self.clean.rows.filter(pl.col("label") == old)
        if not rows.height:
            have = ", ".join(pipeline.classes_of(self.spec, self.manifest))
            msg = f"no image of {self.name!r} has the label {old!r}; there are: {have}"
            raise InputError(msg)
        choices: list[tuple[str, str, Value]] = [(path, LABEL, new) for path in rows["path"].to_list()]
        why = f"class {old} became {new}"
        return decisions.decide(self.workspace.decisions, self.manifest, choices, why=why)

    def retrain(self) -> StageRecord:
        """Train before and after, and compare on the holdout, see `curate.learn.retrain`."""
        with self.workspace.stage_lock("retrain"):
            return pipeline.run_retrain(self.workspace, runner=self.runner, progress=self.progress)

    def predict(self, files: Sequence[Path]) -> pl.DataFrame:
        """Predict image files by the model trained on the clean data set: `file, predicted, confidence, probs`.

        Raises:
            StageNotReady: nothing was trained yet.
            InputError: a file is not there or is no image; it is named.
        """
        from curate.images import ImageFailure, read_header

        model = pipeline.newest_model(self.workspace)
        for file in files:
            try:
                read_header(file)
            except ImageFailure as failure:
                msg = f"{file} is no image that can be read: {failure}"
                raise InputError(msg) from failure
        from curate.learn.train import predict_files

        classes, probs = predict_files(model, files)
        return pl.DataFrame(
            {
                "file": [str(file) for file in files],
                "predicted": [classes[n] for n in probs.argmax(axis=1)],
                "confidence": probs.max(axis=1).tolist(),
                "probs": [dict(zip(classes, row, strict=True)) for row in probs.tolist()],
            }
        )

    def report(self, *, extra: Mapping[str, Any] | None = None) -> Report:
        """Write reports/NAME/index.html and report.json from what there is, see `curate.report`.

        Where nothing has changed since it was written, it stays as it is.
        """
        from curate.report.build import read_report, write_report

        told = dict(extra or {})
        workspace = self.workspace
        with workspace.stage_lock("report"):
            images = pipeline.scan(workspace, progress=self.progress)
            done = {name: record for name, record in self.records.items() if name not in {"report", "export"}}
            inputs = [
                [(name, r.inputs, r.finished_at) for name, r in done.items()], images.drop("mtime_ns").rows(),
                [file_digest(p) if p.is_file() else "" for p in (workspace.decisions, workspace.sources)],
                self.spec.model_dump(mode="json"), told,
            ]  # fmt: skip
            there = (workspace.reports / "index.html").is_file() and (workspace.reports / "report.json").is_file()

            def work() -> dict[str, Any]:
                self.progress("report", "writing", 0, 0)
                write_report(workspace, self.clean, done, extra=told)
                return {}

            record = pipeline.run_stage(workspace, "report", inputs, [], work, force=not there)
        return replace(read_report(workspace), written=not record.skipped)

    def export(
        self, *, format: Literal["imagefolder", "csv"] = "imagefolder", to: Path, only_reviewed: bool = False
    ) -> ExportResult:
        """Write the clean data set to a folder, see `curate.export.write`."""
        from curate.export.write import export

        with self.workspace.stage_lock("export"):
            images = pipeline.scan(self.workspace, progress=self.progress)
            view = pipeline.clean_view(self.workspace, only_reviewed=only_reviewed)
            return export(
                self.workspace, view, images, to=to, format=format,
                progress=lambda done, total: self.progress("export", "images", done, total),
            )  # fmt: skip


def open_dataset(name_or_path: str | Path) -> Dataset:
    """Open a data set by its name under `datasets/` or by its folder.

    Raises:
        DatasetNotFound: there is none; those that exist are named.
        SpecError: its curate.toml is wrong; key and line are named.
    """
    workspace = Workspace.find(name_or_path)
    workspace.spec()
    return Dataset(workspace)


def new_dataset(
    name: str, classes: Mapping[str, Sequence[str]] | None = None, *, title: str = "", spec: str | None = None
) -> Dataset:
    """Make a data set: its folder with a curate.toml.

    Args:
        name: of the folder under `datasets/`.
        classes: class name to what to search for.
        title: what people call it.
        spec: the text of curate.toml, instead.

    Raises:
        InputError: the name is taken or cannot be one.
        SpecError: a class name cannot be one.
    """
    text = spec if spec is not None else spec_text(title or name, classes or {})
    parse_spec(text)
    return Dataset(Workspace.create(name, text))


def spec_text(title: str, classes: Mapping[str, Sequence[str]]) -> str:
    """The curate.toml of a new data set, with what people change first written out."""
    import json

    def quote(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)  # a JSON string, or list of them, is one in TOML too

    parts = [f"title = {quote(title)}\n"]
    for label, queries in classes.items():
        parts.append(f"\n[[classes]]\nname = {quote(label)}\nqueries = {quote(list(queries))}\n")
    parts.append(
        '\n[scrape]\nengines = ["google", "baidu"]\nlimit = 300           # kept images per class\n'
        "\n[augment]\nflip = true           # false where a mirrored picture is another thing: characters, signs\n"
        "\n[train]\nsizes = [128, 256]    # progressive resizing, in pixels\nepochs = 4\n"
        "\n[review]\nbudget = 300          # images that a person is asked about\n"
    )
    return "".join(parts)
