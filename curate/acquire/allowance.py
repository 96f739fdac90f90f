"""What a run may spend: bytes and minutes, over all classes, queries and engines."""

from __future__ import annotations

import threading
import time

from curate.config import ScrapeSpec


class Allowance:
    """Counts what is spent; safe to share between threads.

    What is under way when it is spent is finished and recorded, so a run goes over it by what its threads hold.

    Args:
        spec: `max_total_bytes` and `max_minutes`, each None where there is no bound.
    """

    def __init__(self, spec: ScrapeSpec) -> None:
        self._bytes, self._minutes = spec.max_total_bytes, spec.max_minutes
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self.spent = 0

    def spend(self, size: int) -> None:
        """Count bytes that came over the network."""
        with self._lock:
            self.spent += size

    @property
    def used_up(self) -> str:
        """What was reached, as one sentence for people; empty while there is room."""
        if self._bytes is not None and self.spent >= self._bytes:
            return f"The budget of bytes is used up ([scrape] max_total_bytes = {self._bytes})."
        if self._minutes is not None and time.monotonic() - self._start >= 60 * self._minutes:
            return f"The budget of time is used up ([scrape] max_minutes = {self._minutes:g})."
        return ""
