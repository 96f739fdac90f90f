"""Scraping a data set: every class, query and engine of its spec, going on where the last run stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.acquire import engines as known_engines
from curate.acquire.answers import advice
from curate.acquire.engines import urls
from curate.acquire.history import Line, Yield, read_histories, yields
from curate.acquire.ledger import Ledger, Progress
from curate.config import ClassSpec, Spec
from curate.errors import InputError
from curate.workspace import Workspace

if TYPE_CHECKING:
    from curate.acquire.asking import Unit


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
            "fetched", "rejected", "failed"}` (counts of the class), in the order of the record, from other threads.
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
    histories = read_histories(workspace, [c.name for c in spec.classes])
    stop = threading.Event()
    with Fetcher(spec.scrape, stop=stop) as fetcher:
        for class_spec, units in plan:
            history = histories[class_spec.name]
            ledger = Ledger(
                workspace, spec.scrape, class_spec.name, limit=limit, history=history, refresh=refresh,
                progress=progress, stop=stop,
            )  # fmt: skip
            if units and not ledger.is_over:
                threads = spec.scrape.threads
                ClassCrawler(ledger, fetcher, threads=threads, min_side=spec.scrape.min_side).crawl(units)
            lines += ledger.lines
            kept[class_spec.name] = len(history.present | {line["path"] for line in ledger.lines if line.get("path")})
    order = [(unit.name, unit.query, c.name) for c, units in plan for unit in units]
    rows = yields(lines, order)
    ends = [(kind, y) for y in rows for kind in y.answers if "results" not in y.answers or kind != "no_results"]
    troubles = dict.fromkeys((kind, y.engine) for kind, y in ends)
    told = [text for k, e in troubles if (text := advice(k, e))]
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
    return [
        (c, [
            Unit(name=name, engine=known_engines.engine(name), query=query, endpoint=places[name],
                 filters=filters[name], secret=secrets[name])
            for name, query in _units(c, names)
        ])
        for c in spec.classes
    ]  # fmt: skip


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
    places = {name: by_name.get(name) or known_engines.engine(name).ENDPOINT for name in names}
    if "urls" in names:
        _check_list(workspace, spec, places["urls"])
    return places


def _check_list(workspace: Workspace, spec: Spec, place: str) -> None:
    file = workspace.root / place
    if not place or not file.is_file():
        msg = f'engine urls: there is no list {place!r}. Name one: `[scrape.endpoints]`, `urls = "my_urls.csv"`.'
        raise InputError(msg)
    if len(spec.classes) > 1 and not urls.has_labels(file.read_bytes()):
        several = f"and there are {len(spec.classes)} classes"
        msg = f"{file} is a bare list of URLs, {several}: make it a table with url,label."
        raise InputError(msg)
