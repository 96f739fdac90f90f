"""Asking an engine for one result page, and reading its answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from curate.acquire.answers import Answer, AnswerKind
from curate.acquire.engines import Engine, urls
from curate.acquire.failures import FetchFailure
from curate.acquire.fetch import Fetched, Fetcher
from curate.config import Filter

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
        dead: its pages that did not come, or gave nothing after others did.
        listed: the rows of a list of URLs, which is not asked for; None where there is an engine.
    """

    name: str
    engine: Engine
    query: str
    endpoint: str
    filters: dict[str, Filter] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    seen: set[str] = field(default_factory=set)
    dead: list[int] = field(default_factory=list)
    listed: urls.Listed | None = None

    def page_url(self, number: int) -> str:
        """The address of a result page, counted from 0, without the key."""
        return self.engine.page_url(self.query, number, endpoint=self.endpoint, filters=self.filters)


def ask(fetcher: Fetcher, unit: Unit, number: int, *, label: str) -> Answer:
    """The answer of a result page; a page that nobody gives is an answer, too."""
    if unit.listed is not None:
        return urls.answer(unit.listed, label)
    url = unit.page_url(number)
    try:
        fetched = fetcher.page(f"{url}&{unit.secret}" if unit.secret else url)
    except FetchFailure as failure:
        kind: AnswerKind = "blocked" if failure.reason == "host_paused" else "unreachable"
        answer = Answer(kind=kind, detail=f"{failure.reason}: {failure.detail}")
    else:
        answer = _read(unit, fetched, number, label)
    key = unit.secret.partition("=")[2]
    return replace(answer, detail=answer.detail.replace(key, HIDDEN)) if key else answer


def _read(unit: Unit, fetched: Fetched, number: int, label: str) -> Answer:
    if fetched.status == 200 and not fetched.body.strip():
        return Answer(kind="unreachable", detail="an empty page")
    try:
        return unit.engine.parse(
            fetched.body, status=fetched.status, url=fetched.final_url, page=number, label=label
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - a page that its parser did not expect must not end the run
        return Answer(kind="changed", detail=f"internal_error: {type(error).__name__}: {error}")


def goes_on(unit: Unit, number: int, answer: Answer) -> bool:
    """Whether the next page of a unit is worth asking for, now that page `number` gave `answer`."""
    if answer.kind == "unreachable" or (answer.kind == "changed" and unit.seen):
        unit.dead.append(number)
        return number - 1 not in unit.dead  # one dead page does not stop the others; two in a row do
    new = {hit.url for hit in answer.hits} - unit.seen
    unit.seen.update(new)
    return bool(new)  # an engine that repeats itself has no more
