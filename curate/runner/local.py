"""One machine: in this process for little work, in a pool of processes for much."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from loky import ProcessPoolExecutor

from curate.runner import Item, Result, batches, cores


@dataclass(frozen=True, kw_only=True)
class LocalRunner:
    """Runs on this machine.

    Attributes:
        workers: processes; 1 stays in this one.
        pool_from: batches from which the start of a pool is worth it.
    """

    workers: int = field(default_factory=cores)
    pool_from: int = 16

    def map_batches(
        self, function: Callable[[Sequence[Item]], Result], items: Sequence[Item], *, size: int
    ) -> Iterator[Result]:
        """See `Runner.map_batches`. At most two batches per worker are under way, so memory does not grow."""
        parts = batches(items, size)
        if self.workers == 1 or len(parts) < self.pool_from:
            yield from map(function, parts)
            return
        # fork is unsafe once threads run (torch, polars), and the standard library's other ways run the main script of
        # whoever calls us again in every worker: loky starts clean processes without it.
        waiting: deque[Future[Result]] = deque()
        pool = ProcessPoolExecutor(self.workers)
        try:
            for part in parts:
                waiting.append(pool.submit(function, part))
                if len(waiting) >= 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown(kill_workers=True)  # nobody waits for what they still do; to let them end takes half a second
