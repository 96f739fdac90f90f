"""The Downloader: fetch, decode in full, stage; the ledger decides in order what is kept."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from typing import Any, Literal

from icrawler import Downloader

from curate import images
from curate.acquire.attempts import Attempt, Task
from curate.acquire.failures import HEAD, FetchFailure, Stopped
from curate.acquire.fetch import Fetched, Fetcher
from curate.acquire.hosts import SOON, place_of
from curate.acquire.ledger import Ledger
from curate.acquire.store import scraped_folder, stage
from curate.config import ScrapeSpec

_GLANCE = 0.05
"""Seconds between two looks at hosts that were not free."""


class PixelRoom:
    """Bounds how many pixels are decoded at once over all threads, and so the memory that they take.

    Args:
        pixels: at once; a single picture may have more.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels, self._used = pixels, 0
        self._changed = threading.Condition()
        self._line = threading.Lock()  # who waits for much is not overtaken for ever by those who want little

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Hold room for so many pixels."""
        with self._line, self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + pixels <= self._pixels)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


def examine(fetched: Fetched, spec: ScrapeSpec, room: PixelRoom) -> Attempt:
    """Whether a body is an image that may be kept: decoded in full, and neither too small nor too large.

    Returns:
        An attempt `obtained`, not staged yet, `rejected` with one of `images.FailureReason` or `too_small`, or `failed`
        where this machine could not decode it.
    """
    body = fetched.body
    told: dict[str, Any] = {
        "final_url": fetched.final_url, "http_status": fetched.status, "content_type": fetched.content_type,
        "size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "head": body[:HEAD].hex(),
        "headers": fetched.license,
    }  # fmt: skip
    try:
        header = images.check(body, max_pixels=spec.max_pixels, room=room.of)
    except images.ImageFailure as failure:
        if failure.reason == "too_large":
            with suppress(images.ImageFailure):  # told, so that a larger limit asks for it again
                header = images.read_header(body)
                told |= {"width": header.width, "height": header.height}
        outcome: Literal["failed", "rejected"] = "failed" if failure.reason in images.PASSING else "rejected"
        return Attempt(outcome=outcome, reason=failure.reason, detail=failure.detail, **told)
    told |= {"width": header.width, "height": header.height}
    if min(header.width, header.height) < spec.min_side:
        detail = f"{header.width} x {header.height} pixels; sides of {spec.min_side} are wanted"
        return Attempt(outcome="rejected", reason="too_small", detail=detail, **told)
    return Attempt(outcome="obtained", extension=images.EXTENSIONS[header.format], **told)


def attempt_of(failure: FetchFailure) -> Attempt:
    """The attempt that a failed fetch was."""
    return Attempt(
        outcome=failure.outcome, reason=failure.reason, detail=failure.detail, final_url=failure.final_url or None,
        http_status=failure.status, content_type=failure.content_type or None, size=failure.size,
        head=failure.head.hex(),
    )  # fmt: skip


class Waiting:
    """Tasks that were taken from the queue and whose host is not free yet, in their order for each host.

    So one slow host does not hold all threads, while room is still given in the order of tasks.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._tasks: dict[str, deque[Task]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._tasks.values()))

    def add(self, task: Task) -> None:
        """Put a task aside."""
        self._tasks.setdefault(_host(task.hit.url), deque()).append(task)

    def take(self, *, within: float) -> Task | None:
        """The task that can start first, if that is in so many seconds."""
        free = ((self._fetcher.seconds_until_free(tasks[0].hit.url), host) for host, tasks in self._tasks.items())
        seconds, host = min(free, default=(inf, ""))
        if seconds > within or not host:
            return None
        task = self._tasks[host].popleft()
        if not self._tasks[host]:
            del self._tasks[host]
        return task


def _host(url: str) -> str:
    try:
        return place_of(url).host
    except FetchFailure:
        return "(none)"


class ImageDownloader(Downloader):  # type: ignore[misc] # icrawler carries no types
    """icrawler's downloader with its own way of working through tasks.

    The stock one fixes the file name before the body is there, asks an HTTP error only once, and its threads quit when
    pages come slowly.
    """

    def __init__(self, *args: Any, ledger: Ledger, fetcher: Fetcher, spec: ScrapeSpec) -> None:
        super().__init__(*args)
        self._ledger, self._fetcher, self._spec = ledger, fetcher, spec
        self._room = PixelRoom(spec.max_pixels)
        self._turn = threading.Lock()
        self._waiting = Waiting(fetcher)
        self._at_hand: Task | None = None
        self._ended = False

    def worker_exec(self, **_: Any) -> None:
        """Work through tasks until there are none, or no more are wanted."""
        try:
            while (task := self._take()) is not None:
                self.download(task)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - ends the crawl, and is raised again in the main thread
            self._ledger.halt(error)
        finally:
            self._ledger.ended.release()

    def _take(self) -> Task | None:
        """The next task. One thread at a time, since room is given in the order of tasks."""
        with self._turn:
            while not self._ledger.is_over:
                if self._fetcher.allowance.used_up:
                    self._ledger.halt()
                elif task := self._waiting.take(within=inf if self._ended else SOON):
                    return task
                elif self._ended:
                    break
                else:
                    self._bring_next()
            return None

    def _bring_next(self) -> None:
        """Put the next task among those that wait, once there is room for it; not for long while others wait."""
        patience = _GLANCE if self._waiting else None
        if self._at_hand is None:
            try:
                self._at_hand = self.in_queue.get(timeout=patience)
            except queue.Empty:
                return
        if self._at_hand is None:
            self._ended = True
        elif self._ledger.may_start(patience):
            self._waiting.add(self._at_hand)
            self._at_hand = None

    def download(self, task: Task, *_: Any, **__: Any) -> None:
        """Fetch one image and hand in what came of it."""
        try:
            body, attempt = self._attempt(task)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - one address must not end the crawl, whatever it does
            body, attempt = (
                b"",
                Attempt(outcome="failed", reason="internal_error", detail=f"{type(error).__name__}: {error}"),
            )
        if attempt.outcome == "obtained" and not self._ledger.has(str(attempt.sha256)):
            folder = scraped_folder(self._ledger.workspace, self._ledger.label)
            attempt = replace(attempt, staged=stage(folder, task.number, body))
        self._ledger.deliver(task, attempt)

    def _attempt(self, task: Task) -> tuple[bytes, Attempt]:
        try:
            fetched = self._fetcher.image(task.hit.url)
        except FetchFailure as failure:
            return b"", attempt_of(failure)
        attempt = examine(fetched, self._spec, self._room)
        if self._ledger.is_purged(str(attempt.sha256)):
            attempt = replace(attempt, outcome="rejected", reason="purged", detail="taken down: see its tombstone")
        return fetched.body, attempt
