"""One crawl with icrawler's Feeder, Parser and Downloader: result pages one after another, images many at a time."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from icrawler import Crawler, Feeder, Parser
from icrawler.storage import BaseStorage

from curate.acquire.answers import Answer
from curate.acquire.asking import Unit, ask, goes_on
from curate.acquire.attempts import Task
from curate.acquire.download import ImageDownloader
from curate.acquire.failures import Stopped
from curate.acquire.fetch import Fetcher
from curate.acquire.ledger import Ledger
from curate.config import ScrapeSpec

GRACE = 5.0
"""Seconds that requests under way are given when the crawl is stopped; what they bring is recorded."""


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

    def __init__(self, *args: Any, ledger: Ledger, fetcher: Fetcher) -> None:
        super().__init__(*args, out_queue=queue.Queue())
        self._ledger, self._fetcher = ledger, fetcher

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
            asked = str(page.unit.filters.get("license", ""))
            if task := self._ledger.offer(page.unit.name, page.unit.query, hit, license_filter=asked):
                yield task

    def _work(self, page: Page) -> bool:
        unit = page.unit
        answer = ask(self._fetcher, unit, page.number, label=self._ledger.label)
        self._ledger.answered(unit.name, unit.query, unit.page_url(page.number), page.number, answer)
        for task in self.parse(answer, page):
            self.output(task)
        return goes_on(unit, page.number, answer)


class ClassCrawler(Crawler):  # type: ignore[misc] # icrawler carries no types
    """A crawl for one class. Leaves logging, sessions and storage alone, which icrawler would set up for itself."""

    def __init__(self, ledger: Ledger, fetcher: Fetcher, spec: ScrapeSpec) -> None:
        self._ledger, self._allowance = ledger, fetcher.allowance
        self._working = 2 + spec.threads
        super().__init__(
            PageFeeder, PageParser, ImageDownloader,
            feeder_threads=1, parser_threads=1, downloader_threads=spec.threads, storage=BaseStorage(),
            extra_feeder_args={"ledger": ledger},
            extra_parser_args={"ledger": ledger, "fetcher": fetcher},
            extra_downloader_args={"ledger": ledger, "fetcher": fetcher, "spec": spec},
        )  # fmt: skip

    def set_logger(self, log_level: int = logging.INFO) -> None:
        """Set no handler: a library does not write to the terminal."""
        self.logger = logging.getLogger(__name__)

    def set_session(self, headers: object = None) -> None:
        """No session: our fetcher does the asking."""
        self.session = None

    def crawl(self, units: Sequence[Unit]) -> None:
        """Run to the end, or until Ctrl-C, or until the allowance is used up: what is under way is given a moment."""
        try:
            self.feeder.start(units=units)
            self.parser.start()
            self.downloader.start()
            self._wait(None)
            if self._working:
                self._ledger.halt()
                self._wait(GRACE)
        except BaseException:
            self._ledger.halt()
            self._wait(GRACE)
            raise
        finally:
            self._ledger.close()
        if self._ledger.error is not None:
            raise self._ledger.error

    def _wait(self, seconds: float | None) -> None:
        """Wait for the threads to end, or for the time, or (without one) until the allowance is used up.

        Not by `join`: when Ctrl-C interrupts it, it takes the thread for ended.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._working and (not self._allowance.used_up if deadline is None else time.monotonic() < deadline):
            if self._ledger.ended.acquire(timeout=0.1):
                self._working -= 1
            self._ledger.hurry()
