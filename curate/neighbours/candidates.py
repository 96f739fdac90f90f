"""Which pairs of images to compare, and what their pixels say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.neighbours.hamming import near_pairs
from curate.neighbours.memory import Memory
from curate.neighbours.pixels import verify
from curate.runner import Runner, get_runner

_BATCH = 256
MIN_ALIGNED = 0.65
"""The least similarity after alignment that makes a candidate a duplicate, see `alignment.similarity`."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pair of images whose hashes are near, with what the pixels say.

    `similarity` is the correlation of their greys at 64 px, -1 to 1; NaN where a file could not be read again. Where
    they are `aligned` (one turned, cropped or written over), it is `alignment.similarity`, 0 to 1, which is lower.
    """

    first: str
    second: str
    distance: int
    similarity: float
    aligned: bool = False
    equal: bool = False
    """The same pixels in other containers."""


def passes(candidate: Candidate, min_similarity: float, min_aligned: float) -> bool:
    """Whether a candidate is a duplicate; what could not be compared is none."""
    return candidate.similarity >= (min_aligned if candidate.aligned else min_similarity)  # NaN never is


def candidates(
    features: pl.DataFrame, root: Path, max_distance: int, *, runner: Runner | None = None,
    memory: Memory | None = None, progress: Callable[[int, int], None] | None = None,
) -> list[Candidate]:  # fmt: skip
    """Pairs of different bytes whose phash is near and whose aspect is alike, with their similarity on pixels.

    One row per sha256 takes part, the first by path; identical bytes are `exact` without looking at pixels.

    Args:
        features: schema `FEATURES`.
        root: folder that paths are relative to.
        max_distance: bits of phash, 0 to 16.
        runner: where pictures are read; by default on all cores.
        memory: what was compared before is not compared again.
        progress: called with (done, all).
    """
    rows = features.sort("path").unique("sha256", keep="first", maintain_order=True)
    # The largest first: they are likely to stand for their group, and so must meet all others.
    rows = rows.sort(-(pl.col("width").cast(pl.Int64) * pl.col("height")), "path")
    pairs, distances = _proposed(rows, max_distance)
    paths, digests = rows["path"].to_list(), rows["sha256"].to_list()
    files = [str(root / path) for path in paths]
    size = rows.select("width", "height").to_numpy()
    memory = memory or Memory(None)
    similarity, equal = memory.look_up(digests, pairs, aligned=False)
    todo = np.flatnonzero(np.isnan(similarity))
    # A lossless copy has the same hash and shape.
    maybe = (distances[todo] == 0) & (size[pairs[todo, 0]] == size[pairs[todo, 1]]).all(axis=1)
    jobs = [
        (files[x], files[y], same) for (x, y), same in zip(pairs[todo].tolist(), maybe.tolist(), strict=True)
    ]  # fmt: skip
    done = 0
    for part in (runner or get_runner()).map_batches(verify, jobs, size=_BATCH):
        here = todo[done : done + len(part)]
        similarity[here], equal[here] = [s for s, _ in part], [same for _, same in part]
        memory.add(digests, pairs[here], similarity[here], equal[here], aligned=False)
        done += len(part)
        if progress:
            progress(done, len(jobs))
    memory.save()
    found = []
    told = zip(pairs.tolist(), distances.tolist(), similarity.tolist(), equal.tolist(), strict=True)
    for (x, y), distance, alike, same in told:
        first, second = sorted((paths[x], paths[y]))
        found.append(Candidate(first=first, second=second, distance=distance, similarity=alike, equal=same))
    return sorted(found, key=lambda c: (c.first, c.second))


def _proposed(rows: pl.DataFrame, max_distance: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N, 2) places of pictures to compare, in order, and (N,) how many bits their hashes differ by."""
    aspect = np.log(rows["aspect"].to_numpy())
    distinct, inverse = np.unique(rows["phash"].to_numpy(), return_inverse=True)
    members: list[list[int]] = [[] for _ in distinct]
    for row, value in enumerate(inverse.tolist()):
        members[value].append(row)
    wanted: list[tuple[int, int, int]] = []
    for rows_here in members:
        # Runs of equal hashes (blank pages) would be quadratic: in long ones each meets the largest of each shape.
        if len(rows_here) <= 32:
            wanted += [(x, y, 0) for x, y in combinations(rows_here, 2)]
        else:
            hubs = _hubs(rows_here, aspect, 16)
            wanted += [(x, y, 0) for x, y in {(min(h, r), max(h, r)) for h in hubs for r in rows_here if h != r}]
    for a, b, distance in zip(*near_pairs(distinct, max_distance), strict=True):
        some = {(x, y) for x in _hubs(members[a], aspect, 8) for y in members[b][:64]}
        some |= {(x, y) for x in members[a][:64] for y in _hubs(members[b], aspect, 8)}
        wanted += [(x, y, int(distance)) for x, y in some]
    table = np.array(sorted(wanted), dtype=np.int64).reshape(-1, 3)
    table = table[np.abs(aspect[table[:, 0]] - aspect[table[:, 1]]) < 0.12]
    return table[:, :2], table[:, 2]


def _hubs(rows: Sequence[int], aspect: NDArray[np.floating], count: int) -> list[int]:
    """The first `count` of each shape."""
    by_shape: dict[float, list[int]] = {}
    for row in rows:
        by_shape.setdefault(round(float(aspect[row]), 1), []).append(row)
    return [row for part in by_shape.values() for row in part[:count]]
