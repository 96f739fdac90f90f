"""The Downloader: fetch, decode in full, stage; the ledger decides in order what is kept."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from typing import Any

from icrawler import Downloader

from curate import images
from curate.acquire.attempts import Attempt, Task
from curate.acquire.failures import HEAD, FetchFailure, Stopped
from curate.acquire.fetch import Fetched, Fetcher
from curate.acquire.ledger import Ledger
from curate.acquire.store import scraped_folder, stage


def examine(fetched: Fetched, *, min_side: int) -> Attempt:
    """Whether a body is an image that may be kept: decoded in full, and large enough.

    Returns:
        An attempt `obtained`, not staged yet, or `rejected` with one of `images.FailureReason` or `too_small`.
    """
    body = fetched.body
    told: dict[str, Any] = {
        "final_url": fetched.final_url, "http_status": fetched.status, "content_type": fetched.content_type,
        "size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "head": body[:HEAD].hex(),
        "headers": fetched.license,
    }  # fmt: skip
    try:
        _, header = images.load_with_header(body)
    except images.ImageFailure as failure:
        return Attempt(outcome="rejected", reason=failure.reason, detail=failure.detail, **told)
    told |= {"width": header.width, "height": header.height}
    if min(header.width, header.height) < min_side:
        detail = f"{header.width} x {header.height} pixels; sides of {min_side} are wanted"
        return Attempt(outcome="rejected", reason="too_small", detail=detail, **told)
    return Attempt(outcome="obtained", extension=images.EXTENSIONS[header.format], **told)


def attempt_of(failure: FetchFailure) -> Attempt:
    """The attempt that a failed fetch was."""
    return Attempt(
        outcome=failure.outcome, reason=failure.reason, detail=failure.detail, final_url=failure.final_url or None,
        http_status=failure.status, content_type=failure.content_type or None, size=failure.size,
        head=failure.head.hex(),
    )  # fmt: skip


class ImageDownloader(Downloader):  # type: ignore[misc] # icrawler carries no types
    """icrawler's downloader with its own way of working through tasks.

    The stock one fixes the file name before the body is there, asks an HTTP error only once, and its threads quit when
    pages come slowly.
    """

    def __init__(self, *args: Any, ledger: Ledger, fetcher: Fetcher, min_side: int) -> None:
        super().__init__(*args)
        self._ledger, self._fetcher, self._min_side = ledger, fetcher, min_side
        self._turn = threading.Lock()
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
            if self._ended:
                return None
            task: Task | None = self.in_queue.get()
            if self._fetcher.allowance.used_up:
                self._ledger.halt()
            if task is None or not self._ledger.may_start():
                self._ended = True
                return None
            return task

    def download(self, task: Task, *_: Any, **__: Any) -> None:
        """Fetch one image and hand in what came of it."""
        try:
            fetched = self._fetcher.image(task.hit.url)
        except FetchFailure as failure:
            self._ledger.deliver(task, attempt_of(failure))
            return
        attempt = examine(fetched, min_side=self._min_side)
        if self._ledger.is_purged(str(attempt.sha256)):
            attempt = replace(attempt, outcome="rejected", reason="purged", detail="taken down: see its tombstone")
        if attempt.outcome == "obtained" and not self._ledger.has(str(attempt.sha256)):
            folder = scraped_folder(self._ledger.workspace, self._ledger.label)
            staged = stage(folder, task.number, fetched.body)
            attempt = replace(attempt, staged=staged)
        self._ledger.deliver(task, attempt)
