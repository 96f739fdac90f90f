"""Near pairs of 64-bit hashes: exact, for millions of them, in NumPy alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import combinations
from math import comb, log2

import numpy as np
from numpy.typing import NDArray

from curate.errors import InputError
from curate.runner import cores

Hashes = NDArray[np.uint64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int16]]
ValuePairs = tuple[Hashes, Hashes]

_BRUTE_FORCE = 2048
_LONG = 64  # a longer bucket is compared as a block, not neighbour by neighbour, unless most are that long
_CHUNK = 1 << 15  # values compared at a time: they and their differences stay in the cache


def near_pairs(hashes: NDArray[np.uint64], max_distance: int, *, workers: int | None = None) -> Pairs:
    """All pairs of distinct 64-bit hashes within a Hamming distance; exact: none missed, none invented.

    Few hashes are compared all with all. For many, the 64 bits are cut into bands: two hashes within `d` bits agree
    on at least `bands - d` bands (the pigeonhole argument of multi-index hashing, Norouzi et al. 2012). For every
    choice of that many bands these are moved to the highest bits and the values sorted: what can be near lies in one
    bucket. A pair is told only by the first choice that brings it together, so that dense clusters cost no memory
    beyond their pairs. Buckets that stay long are cut again by their remaining bits.

    Args:
        hashes: (N,) distinct values; identical hashes must be collapsed by the caller.
        max_distance: 0 to 16 bits.
        workers: threads; by default one per core. The result does not depend on it.

    Returns:
        `(i, j, distance)`: int64, int64, int16 arrays of one length, `i < j`, sorted by (i, j).

    Raises:
        InputError: hashes repeat, or the distance is out of range.

    Example:
        >>> i, j, d = near_pairs(np.array([0, 3, 255], dtype=np.uint64), 2)
        >>> i.tolist(), j.tolist(), d.tolist()
        ([0], [1], [2])
    """
    if not 0 <= max_distance <= 16:
        msg = f"max_distance must be 0 to 16 bits, not {max_distance}"
        raise InputError(msg)
    hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
    order = np.argsort(hashes)
    values = hashes[order]
    if (values[1:] == values[:-1]).any():
        msg = "near_pairs wants distinct hashes: collapse identical ones first (numpy.unique)"
        raise InputError(msg)
    if max_distance == 0 or len(hashes) < 2:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, np.empty(0, dtype=np.int16)
    a, b = _joined(_search(values, 64, max_distance, workers or cores()))
    i, j = order[np.searchsorted(values, a)], order[np.searchsorted(values, b)]
    del a, b
    n = np.int64(len(hashes))
    keys = np.minimum(i, j) * n + np.maximum(i, j)
    del i, j
    keys.sort()
    i, j = keys // n, keys % n
    return i, j, np.bitwise_count(hashes[i] ^ hashes[j]).astype(np.int16)


def _joined(parts: Iterable[ValuePairs]) -> ValuePairs:
    found = [part for part in parts if len(part[0])]
    if not found:
        none = np.empty(0, dtype=np.uint64)
        return none, none
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _search(values: Hashes, width: int, limit: int, workers: int = 1) -> Iterator[ValuePairs]:
    """Near pairs of distinct values that differ in their lowest `width` bits at most."""
    if len(values) <= _BRUTE_FORCE or limit >= width:
        yield from _block(values, limit)
        return
    bands, agree = _scheme(len(values), width, limit)
    edges = np.linspace(0, width, bands + 1).round().astype(int).tolist()
    choices = list(combinations(range(bands), agree))
    if workers == 1:
        for chosen in choices:
            yield from _in_buckets(values, edges, chosen, limit)
        return
    with ThreadPoolExecutor(workers) as pool:  # NumPy sorts and compares without the interpreter's lock
        yield from pool.map(lambda chosen: _joined(_in_buckets(values, edges, chosen, limit)), choices)


@lru_cache(maxsize=4096)
def _scheme(n: int, width: int, limit: int) -> tuple[int, int]:
    """How many bands, and how many of them must agree, so that the estimated work is least."""

    def work(bands: int) -> float:
        agree = bands - limit
        bucket = n / 2 ** (agree * width / bands)
        return float(comb(bands, agree) * n * (2 * log2(n) + 2 * agree + 2 * bucket + 6 * bucket**0.5))

    best = min(range(min(limit + 1, width), min(limit + 8, width) + 1), key=work)
    return best, best - limit


def _in_buckets(values: Hashes, edges: Sequence[int], chosen: tuple[int, ...], limit: int) -> Iterator[ValuePairs]:
    """Near pairs that agree on the chosen bands, and on no choice that comes before."""
    bands = len(edges) - 1
    rest = [band for band in range(bands) if band not in chosen]
    moves = []
    place = 0
    for band in (*rest, *chosen):
        size = edges[band + 1] - edges[band]
        moves.append((edges[band], size, place))
        place += size
    low = sum(edges[band + 1] - edges[band] for band in rest)
    # The bands before the last chosen one that were left out must differ, else an earlier choice has told the pair.
    earlier = [
        np.uint64(((1 << size) - 1) << to)
        for band, (_, size, to) in zip(rest, moves, strict=False) if band < chosen[-1]
    ]  # fmt: skip
    moved = _moved(values, moves)
    moved.sort()
    back = [(to, size, at) for at, size, to in moves]
    above = edges[-1]
    top = values[:1] >> np.uint64(above) << np.uint64(above) if above < 64 else np.zeros(1, dtype=np.uint64)
    for a, b in _gathered(_compare(moved, low, limit)):
        difference = a ^ b
        new = np.ones(len(a), dtype=bool)
        for mask in earlier:
            new &= (difference & mask) != 0
        yield _moved(a[new], back) | top, _moved(b[new], back) | top


def _gathered(parts: Iterator[ValuePairs], size: int = 1 << 18) -> Iterator[ValuePairs]:
    """The same pairs in fewer, larger parts."""
    waiting: list[ValuePairs] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part[0])
        if count >= size:
            yield _joined(waiting)
            waiting, count = [], 0
    if count:
        yield _joined(waiting)


def _moved(values: Hashes, moves: Sequence[tuple[int, int, int]]) -> Hashes:
    """Values whose runs of bits (from, size, to) lie elsewhere; bits that no run names are cleared."""
    runs: list[tuple[int, int, int]] = []
    for start, size, to in sorted(moves):  # neighbours that stay neighbours move as one
        if runs and runs[-1][0] + runs[-1][1] == start and runs[-1][2] + runs[-1][1] == to:
            start, size, to = runs[-1][0], runs[-1][1] + size, runs[-1][2]
            runs.pop()
        runs.append((start, size, to))
    out = np.zeros_like(values)
    for at in range(0, len(values), _CHUNK):
        part, here = values[at : at + _CHUNK], out[at : at + _CHUNK]
        for start, size, to in runs:
            bits = part & np.uint64(((1 << size) - 1) << start)
            here |= bits << np.uint64(to - start) if to >= start else bits >> np.uint64(start - to)
    return out


def _compare(values: Hashes, low: int, limit: int) -> Iterator[ValuePairs]:
    """Near pairs of sorted values within their buckets: what agrees above the lowest `low` bits."""
    starts = np.flatnonzero((values[1:] ^ values[:-1]) >> np.uint64(low)) + 1
    starts = np.concatenate([[0], starts, [len(values)]])
    sizes = np.diff(starts)
    long = np.flatnonzero(sizes > min(_CHUNK, max(_LONG, 4 * len(values) // len(sizes))))
    for bucket in long.tolist():
        part = values[starts[bucket] : starts[bucket + 1]]
        yield from _block(part, limit) if _is_dense(part, limit) else _search(part, low, limit)
    # Each value with the next, the one after, ... as far as the longest of the shorter buckets here reaches.
    first = 0
    done = np.repeat(np.isin(np.arange(len(sizes)), long), sizes) if len(long) else None
    sizes[long] = 1
    while first < len(sizes):
        last = int(np.searchsorted(starts, starts[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), len(sizes))
        begin, end, reach = int(starts[first]), int(starts[last]), int(sizes[first:last].max())
        first = last
        if reach == 1:
            continue  # only long buckets here, which were compared above
        for step in range(1, reach):
            here, there = values[begin : end - step], values[begin + step : end]
            if not len(here):
                break
            difference = here ^ there
            close = np.flatnonzero(np.bitwise_count(difference) <= limit)
            if len(close):
                close = close[difference[close] >> np.uint64(low) == 0]
                if done is not None:
                    close = close[~done[begin + close]]
                yield here[close], there[close]


def _is_dense(values: Hashes, limit: int) -> bool:
    """Whether so many pairs of a long bucket are near that cutting it again would not part them."""
    if len(values) <= _BRUTE_FORCE:
        return True
    some = values[:: len(values) // 256]
    near = np.bitwise_count(some[:, None] ^ some[None, :]) <= limit
    return int(near.sum()) - len(some) > len(some) ** 2 // 500


def _block(values: Hashes, limit: int) -> Iterator[ValuePairs]:
    """Near pairs, all compared with all."""
    height = max(1, 2 * _CHUNK // max(1, len(values)))
    for at in range(0, len(values) - 1, height):
        part, others = values[at : at + height], values[at + 1 :]
        near = np.flatnonzero(np.bitwise_count(part[:, None] ^ others[None, :]) <= limit)
        row, column = np.divmod(near, len(others))
        after = column >= row
        if after.any():
            yield part[row[after]], others[column[after]]
