"""Where the heavy stages run: in this process, on all cores, or on Ray. The stages are the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

from curate.errors import EnvironmentMissing

Item = TypeVar("Item")
Result = TypeVar("Result")
RunnerName = Literal["local", "ray"]


class Runner(Protocol):
    """Maps a function over batches; results come in the order of the items, whatever the number of workers."""

    def map_batches(
        self, function: Callable[[Sequence[Item]], Result], items: Sequence[Item], *, size: int,
        lost: Callable[[Item], Result] | None = None,
    ) -> Iterator[Result]:  # fmt: skip
        """Call `function` on consecutive batches of at most `size` items and yield the results in order.

        Where a process dies (killed for want of memory, or by a library that crashed), what it may have worked on is
        done again, alone.

        Args:
            function: importable by name, so that other processes can find it.
            items: what to work on.
            size: of a batch.
            lost: the result of an item on which processes die again and again; the others of its batch then have
                results of their own.

        Raises:
            EnvironmentMissing: processes die again and again, and there is no `lost`, or it is on every item.
        """
        ...


def died(part: Sequence[object]) -> EnvironmentMissing:
    """The error for a batch whose processes die again and again."""
    msg = (
        f"the processes that work on {len(part)} items from {str(part[0])[:200]} on die again and again: "
        "there is too little memory, or a library crashes. Free some memory and run again."
    )
    return EnvironmentMissing(msg)


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Split items into consecutive batches.

    Example:
        >>> batches([1, 2, 3], 2)
        [[1, 2], [3]]
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_runner(name: RunnerName = "local") -> Runner:
    """The runner of that name; raises `EnvironmentMissing` where Ray is asked for and not installed."""
    if name == "ray":
        from curate.runner.ray import RayRunner

        return RayRunner()
    from curate.runner.local import LocalRunner

    return LocalRunner()
