"""Where the heavy stages run: in this process, on all cores, or on Ray. The stages are the same everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
RunnerName = Literal["local", "ray"]


class Runner(Protocol):
    """Maps a function over batches; results come in the order of the items, whatever the number of workers."""

    def map_batches(
        self, function: Callable[[Sequence[Item]], Result], items: Sequence[Item], *, size: int
    ) -> Iterator[Result]:
        """Call `function` on consecutive batches of at most `size` items and yield the results in order.

        `function` must be importable by name, so that other processes can find it.
        """
        ...


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
