"""One crawl with icrawler's Feeder, Parser and Downloader: result pages one after another, images many at a time."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icrawler import Crawler, Feeder, Parser
from icrawler.storage import BaseStorage

from curate.acquire.answers import Answer
from curate.acquire.download import ImageDownloader
from curate.acquire.engines import Engine
from curate.acquire.failures import FetchFailure, Stopped
from curate.acquire.fetch import Fetched, Fetcher
from curate.acquire.ledger import Ledger, Task

GRACE = 5.0
"""Seconds that requests under way are given when the crawl is stopped; what they bring is recorded."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One query to one engine. `seen` are the addresses that its pages have offered in this run."""

    name: str
    engine: Engine
    query: str
    endpoint: str
    filters: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def page_url(self, number: int) -> str:
        """The address of a result page, counted from 0."""
        return self.engine.page_url(self.query, number, endpoint=self.endpoint, filters=self.filters)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A result page to ask for. `more` tells the feeder whether the next one is worth asking."""

    unit: Unit
    number: int
    more: queue.SimpleQueue[bool] = field(default_factory=queue.SimpleQueue)


class PageFeeder(Feeder):  # type: ignore[misc] # icrawler carries no types
    """Feeds the pages of each unit, one at a time, as long as the page before had something new."""

    def __init__(self, *args: Any, ledger: Ledger) -> None:
        super().__init__(*args)
        self._ledger = ledger
        # icrawler's own queue takes a task for a duplicate when putting it timed out, and drops it.
        self.out_queue: queue.Queue[Page | None] = queue.Queue()

    def feed(self, units: Sequence[Unit]) -> None:
        """Put pages into the queue, then None."""
        try:
            for unit in units:
                for number in range(unit.engine.PAGES):
                    page = Page(unit=unit, number=number)
                    self.out_queue.put(page)
                    if not page.more.get() or self._ledger.is_over:
                        break
                if self._ledger.is_over:
                    break
        finally:
            self.out_queue.put(None)
            self._ledger.ended.release()


class PageParser(Parser):  # type: ignore[misc] # icrawler carries no types
    """Asks for result pages when they are needed, records what the engine answered, and hands on the hits."""

    def __init__(self, *args: Any, ledger: Ledger, fetcher: Fetcher, root: Path) -> None:
        super().__init__(*args, out_queue=queue.Queue())
        self._ledger, self._fetcher, self._root = ledger, fetcher, root

    def worker_exec(self, **_: Any) -> None:
        """Work through pages until the feeder has no more."""
        try:
            while (page := self.in_queue.get()) is not None:
                more = False
                try:
                    more = self._ledger.may_ask_page() and self._work(page)
                finally:
                    page.more.put(more)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - ends the crawl, and is raised again in the main thread
            self._ledger.halt(error)
        finally:
            self.output(None)
            self._ledger.ended.release()

    def parse(self, response: Answer, page: Page) -> Iterator[Task]:
        """The tasks of an answer: its hits without those that are settled."""
        for hit in response.hits:
            if task := self._ledger.offer(page.unit.name, page.unit.query, hit):
                yield task

    def _work(self, page: Page) -> bool:
        url = page.unit.page_url(page.number)
        answer = self._answer(url, page)
        self._ledger.answered(page.unit.name, page.unit.query, url, page.number, answer)
        for task in self.parse(answer, page):
            self.output(task)
        new = {hit.url for hit in answer.hits} - page.unit.seen
        page.unit.seen.update(new)
        return bool(new)  # an engine that repeats itself has no more

    def _answer(self, url: str, page: Page) -> Answer:
        try:
            fetched = self._fetch(url, page.unit)
        except FetchFailure as failure:
            return Answer(kind="unreachable", detail=f"{failure.reason}: {failure.detail}")
        return page.unit.engine.parse(
            fetched.body, status=fetched.status, url=fetched.final_url, page=page.number, label=self._ledger.label
        )

    def _fetch(self, url: str, unit: Unit) -> Fetched:
        if unit.name != "urls":
            return self._fetcher.page(url)
        return Fetched(body=(self._root / url).read_bytes(), final_url=url, status=200, content_type="text/plain")


class ClassCrawler(Crawler):  # type: ignore[misc] # icrawler carries no types
    """A crawl for one class. Leaves logging, sessions and storage alone, which icrawler would set up for itself."""

    def __init__(self, ledger: Ledger, fetcher: Fetcher, *, threads: int, min_side: int) -> None:
        self._ledger = ledger
        self._working = 2 + threads
        super().__init__(
            PageFeeder, PageParser, ImageDownloader,
            feeder_threads=1, parser_threads=1, downloader_threads=threads, storage=BaseStorage(),
            extra_feeder_args={"ledger": ledger},
            extra_parser_args={"ledger": ledger, "fetcher": fetcher, "root": ledger.workspace.root},
            extra_downloader_args={"ledger": ledger, "fetcher": fetcher, "min_side": min_side},
        )  # fmt: skip

    def set_logger(self, log_level: int = logging.INFO) -> None:
        """Set no handler: a library does not write to the terminal."""
        self.logger = logging.getLogger(__name__)

    def set_session(self, headers: object = None) -> None:
        """No session: our fetcher does the asking."""
        self.session = None

    def crawl(self, units: Sequence[Unit]) -> None:
        """Run to the end, or until Ctrl-C: then what is under way is given a moment, recorded, and the crawl ends."""
        try:
            self.feeder.start(units=units)
            self.parser.start()
            self.downloader.start()
            self._wait(None)
        except BaseException:
            self._ledger.halt()
            self._wait(GRACE)
            raise
        finally:
            self._ledger.close()
        if self._ledger.error is not None:
            raise self._ledger.error

    def _wait(self, seconds: float | None) -> None:
        """Wait for the threads to end. Not by `join`: when Ctrl-C interrupts it, it takes the thread for ended."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._working and (deadline is None or time.monotonic() < deadline):
            if self._ledger.ended.acquire(timeout=0.1):
                self._working -= 1
