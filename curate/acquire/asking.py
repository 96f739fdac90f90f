"""Asking an engine for one result page, and reading its answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from curate.acquire.answers import Answer
from curate.acquire.engines import Engine
from curate.acquire.failures import FetchFailure
from curate.acquire.fetch import Fetched, Fetcher

HIDDEN = "***"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One query to one engine.

    Attributes:
        name: the engine's name.
        engine: how it is asked and read.
        query: the search words; empty for a list of URLs.
        endpoint: where it is asked.
        filters: filter name to value.
        secret: what carries the engine's key; sent with each page, and kept out of every log.
        seen: addresses that its pages have offered in this run.
        dead: its pages that gave nothing after others did.
    """

    name: str
    engine: Engine
    query: str
    endpoint: str
    filters: dict[str, str] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    seen: set[str] = field(default_factory=set)
    dead: list[int] = field(default_factory=list)

    def page_url(self, number: int) -> str:
        """The address of a result page, counted from 0, without the key."""
        return self.engine.page_url(self.query, number, endpoint=self.endpoint, filters=self.filters)


def ask(fetcher: Fetcher, unit: Unit, number: int, *, root: Path, label: str) -> Answer:
    """The answer of a result page; a page that nobody gives is an answer, too."""
    url = unit.page_url(number)
    try:
        fetched = _fetch(fetcher, unit, url, root)
    except FetchFailure as failure:
        answer = Answer(kind="unreachable", detail=f"{failure.reason}: {failure.detail}")
    else:
        answer = unit.engine.parse(
            fetched.body, status=fetched.status, url=fetched.final_url, page=number, label=label
        )  # fmt: skip
    key = unit.secret.partition("=")[2]
    return replace(answer, detail=answer.detail.replace(key, HIDDEN)) if key else answer


def goes_on(unit: Unit, number: int, answer: Answer) -> bool:
    """Whether the next page of a unit is worth asking for, now that page `number` gave `answer`."""
    if answer.kind in {"unreachable", "changed"} and unit.seen:
        unit.dead.append(number)
        return number - 1 not in unit.dead  # one dead page does not stop the others; two in a row do
    new = {hit.url for hit in answer.hits} - unit.seen
    unit.seen.update(new)
    return bool(new)  # an engine that repeats itself has no more


def _fetch(fetcher: Fetcher, unit: Unit, url: str, root: Path) -> Fetched:
    if unit.name != "urls":
        return fetcher.page(f"{url}&{unit.secret}" if unit.secret else url)
    return Fetched(body=(root / url).read_bytes(), final_url=url, status=200, content_type="text/plain")
