"""Scraping a data set: every class, query and engine of its spec, going on where the last run stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curate.acquire import engines as known_engines
from curate.acquire.answers import advice
from curate.acquire.engines import urls
from curate.acquire.history import Line, Yield, is_final, read_histories, yields
from curate.acquire.ledger import Ledger, Progress
from curate.acquire.store import set_aside
from curate.config import ClassSpec, Spec
from curate.errors import InputError
from curate.workspace import Workspace, read_log

if TYPE_CHECKING:
    from curate.acquire.asking import Unit

_NO_ANSWER = frozenset({"unreachable", "blocked", "changed"})


@dataclass(frozen=True, kw_only=True)
class ScrapeSummary:
    """What a run of `scrape` did.

    Attributes:
        yields: per engine, query and class, in the order of the spec.
        kept: class to its number of kept images, those of earlier runs included.
        limit: kept images per class at most.
        advice: what to do about engines that gave nothing, one sentence or two each.
        stopped: the budget that ended the run before it was through; empty where none did.
    """

    yields: tuple[Yield, ...]
    kept: Mapping[str, int]
    limit: int
    advice: tuple[str, ...]
    stopped: str = ""

    @property
    def unfinished(self) -> bool:
        """Whether the same run may give more later: it was stopped, or a class with too few images met what passes."""
        short = [y for y in self.yields if self.kept.get(y.label, 0) < self.limit]
        passing = any(not is_final(reason) for y in short for reason in y.failed)
        return bool(self.stopped) or passing or any(y.answers.keys() & _NO_ANSWER for y in short)

    @property
    def asked(self) -> int:
        """Image addresses that were asked for in this run."""
        return sum(y.asked for y in self.yields)

    @property
    def new(self) -> int:
        """Files that this run has added."""
        return sum(y.kept for y in self.yields)


def scrape(
    workspace: Workspace, spec: Spec, *, engines: Sequence[str] | None = None, limit: int | None = None,
    refresh: bool = False, progress: Progress | None = None, endpoints: Mapping[str, str] | None = None,
) -> ScrapeSummary:  # fmt: skip
    """Obtain images for every class of the spec. The caller holds the stage lock `scrape`.

    Args:
        workspace: the data set.
        spec: its spec.
        engines: engines to ask instead of the spec's.
        limit: kept images per class, instead of the spec's.
        refresh: ask again for what is settled: bytes that did not change stay as they are.
        progress: called per finished attempt with `{"label", "outcome", "reason", "kept", "limit", "found",
            "asked", "fetched", "rejected", "failed"}` (counts of the class), in the order of the record, from other
            threads.
        endpoints: where engines are reached, instead of the spec's.

    Returns:
        What was done. Every attempt is also a line of sources.jsonl.

    Raises:
        InputError: the spec has no query, asks for an engine or filter that there is not, or a list of URLs is bad.
        KeyboardInterrupt: passed on after what was under way is recorded.
    """
    from curate.acquire.crawl import ClassCrawler  # icrawler and urllib3 are loaded only when they are used
    from curate.acquire.fetch import Fetcher

    names, limit = names_and_limit(spec, engines, limit)
    plan = units_of(workspace, spec, names, endpoints)
    lines: list[Line] = []
    kept: dict[str, int] = {}
    records = read_log(workspace.sources).records
    aside = set_aside(workspace, {str(line.get("path")) for line in records})
    histories = read_histories(workspace, [c.name for c in spec.classes], records)
    stop = threading.Event()
    with Fetcher(spec.scrape, stop=stop) as fetcher:
        for class_spec, units in plan:
            history = histories[class_spec.name]
            ledger = Ledger(
                workspace, spec.scrape, class_spec.name, limit=limit, history=history, refresh=refresh,
                progress=progress, stop=stop,
            )  # fmt: skip
            if units and not ledger.is_over:
                ClassCrawler(ledger, fetcher, spec.scrape).crawl(units)
            lines += ledger.lines
            kept[class_spec.name] = len(history.present | {line["path"] for line in ledger.lines if line.get("path")})
    order = [(unit.name, unit.query, c.name) for c, units in plan for unit in units]
    rows = yields(lines, order)
    dead = {
        (kind, y.engine): y for y in reversed(rows) for kind in y.answers
        if "results" not in y.answers or kind != "no_results"
    }  # fmt: skip
    details = {(x["outcome"], x["engine"]): x["detail"] for x in reversed(lines) if x["kind"] == "query"}
    told = [text for k, e in reversed(dead) if (text := advice(k, e, str(details.get((k, e), ""))))]
    told += left_out(plan)
    if aside:
        told.append(
            f"{len(aside)} files that an earlier crash left without a line in sources.jsonl are in cache/unlisted."
        )
    stopped = fetcher.allowance.used_up if stop.is_set() else ""
    if stopped:
        told.append(f"{stopped} Run again to go on: what is there already is not asked for twice.")
    return ScrapeSummary(yields=rows, kept=kept, limit=limit, advice=tuple(told), stopped=stopped)


def names_and_limit(spec: Spec, engines: Sequence[str] | None, limit: int | None) -> tuple[tuple[str, ...], int]:
    """The engines to ask and the kept images per class: as given, else the spec's. Raises `InputError`."""
    limit = spec.scrape.limit if limit is None else limit
    if limit < 1:
        msg = f"the limit of kept images per class is {limit}: it has to be at least 1."
        raise InputError(msg)
    return tuple(dict.fromkeys(engines or spec.scrape.engines)), limit


def units_of(
    workspace: Workspace, spec: Spec, names: Sequence[str], endpoints: Mapping[str, str] | None
) -> list[tuple[ClassSpec, list[Unit]]]:
    """What is asked for each class, in order; all that is wrong with it is told before anything is asked.

    Raises:
        InputError: as `scrape`.
        EnvironmentMissing: an engine needs a key that is not in the environment.
    """
    from curate.acquire.asking import Unit

    places = _endpoints(workspace, spec, names, endpoints)
    if not any(_units(c, names) for c in spec.classes):
        msg = f"{workspace.spec_path} has no class with queries. Add `queries = [...]` to its [[classes]]."
        raise InputError(msg)
    filters = {name: known_engines.filters_of(name, spec.scrape.filters) for name in names}
    for name in names:
        known_engines.engine(name).page_url("", 0, endpoint=places[name], filters=filters[name])
    secrets = {name: known_engines.secret(name) for name in names}
    listed = _listed(workspace, spec, places["urls"]) if "urls" in names else None
    return [
        (c, [
            Unit(name=name, engine=known_engines.engine(name), query=query, endpoint=places[name],
                 filters=filters[name], secret=secrets[name], listed=listed if name == "urls" else None)
            for name, query in _units(c, names)
        ])
        for c in spec.classes
    ]  # fmt: skip


def left_out(plan: Sequence[tuple[ClassSpec, Sequence[Unit]]]) -> list[str]:
    """What of a list of URLs serves no class, as sentences for people."""
    listed = next((unit.listed for _, units in plan for unit in units if unit.listed), None)
    return [text for text in (listed.left_out(c.name for c, _ in plan) if listed else "",) if text]


def _units(class_spec: ClassSpec, names: Sequence[str]) -> list[tuple[str, str]]:
    """(engine, query) in the order in which they are asked: each query at every engine, a list of URLs once."""
    asked = [(name, query) for query in class_spec.queries for name in names if name != "urls"]
    return asked + [("urls", "")] * ("urls" in names)


def _endpoints(
    workspace: Workspace, spec: Spec, names: Sequence[str], given: Mapping[str, str] | None
) -> dict[str, str]:
    configured = spec.scrape.endpoints if given is None else given
    if isinstance(configured, str):
        msg = f'{workspace.spec_path}: endpoints = "demo" needs the loopback server: `curate scrape` starts it.'
        raise InputError(msg)
    by_name = {str(name): place for name, place in configured.items()}
    return {name: by_name.get(name) or known_engines.engine(name).ENDPOINT for name in names}


def list_of_urls(
    workspace: Workspace, spec: Spec, names: Sequence[str], endpoints: Mapping[str, str] | None
) -> Path | None:  # fmt: skip
    """The list of URLs that such a scrape reads; None where it reads none, or there is none."""
    places = spec.scrape.endpoints if endpoints is None else endpoints
    by_name = {} if isinstance(places, str) else {str(name): place for name, place in places.items()}
    place = by_name.get("urls", "") if "urls" in names else ""
    file = workspace.root / place
    return file if place and file.is_file() else None


def _listed(workspace: Workspace, spec: Spec, place: str) -> urls.Listed:
    file = workspace.root / place
    if not place or not file.is_file():
        msg = f'engine urls: there is no list {place!r}. Name one: `[scrape.endpoints]`, `urls = "my_urls.csv"`.'
        raise InputError(msg)
    return urls.read_list(file.read_bytes(), str(file), classes=len(spec.classes))
