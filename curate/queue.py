"""One order over all findings: what a person should look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import polars as pl

from curate.schema import QUEUE, validate

WORTH = {"duplicates:conflict": 0.98, "outlier": 0.8, "ambiguous": 0.3}
"""How likely a decision on the worst finding of a check changes the data set, where the check has no probability."""
Told = tuple[str, float, str, str | None, int | None]
"""Check, score, reason, suggestion and group of one finding."""
_BULK = ("duplicates:exact", "duplicates:near", "leakage")


_FEW = 20


def build(
    findings: pl.DataFrame, p_wrong: Mapping[str, float], groups: pl.DataFrame, *, probes: float, seed: int = 0
) -> pl.DataFrame:
    """Put every image that was judged into one order, each once, by what a look at it is worth.

    The worth of an image is the chance that any of its findings is right: p_wrong for the checks on labels, taken
    once; for others a weight times one minus the score. Of images in one duplicate group only the first stands in its
    place, the others follow after all that was flagged: who has decided on one has decided on them. Members of a label
    conflict stay together, so that both are seen at once. Exact and near-duplicates as such are no cause to look:
    they are accepted in bulk.

    Random images are mixed in at a fixed rate (the column `probe`), because the head of a queue tells nothing about
    its tail: without them nobody could say how many errors remain.

    Args:
        findings: schema `FINDINGS`.
        p_wrong: path to the probability that its label is wrong, for every image that was judged.
        groups: schema `GROUPS`.
        probes: share of random images, 0 to below 1.
        seed: of the random images.

    Returns:
        A table of schema `QUEUE`: all of `p_wrong` and of `findings`, ranks from 1.
    """
    told: dict[str, list[Told]] = {}
    columns = ("path", "check", "score", "reason", "suggestion", "group")
    ordered = findings.select(columns).sort("check", "score", "path", "group", "reason")
    for path, check, score, reason, suggestion, number in ordered.iter_rows():
        told.setdefault(path, []).append((check, score, reason, suggestion, number))
    together: dict[str, int] = {}
    conflicts: dict[int, list[str]] = {}
    for path, rows in told.items():
        for check, _, _, _, number in rows:
            if check == "duplicates:conflict" and number is not None:
                conflicts.setdefault(number, []).append(path)
                together[path] = number
    worth = {path: _worth(told.get(path, ()), p_wrong.get(path, 0.0)) for path in {*p_wrong, *told}}
    flagged = {path for path, rows in told.items() if any(row[0] not in _BULK for row in rows)}
    group_of: dict[str, int] = dict(groups.select("path", "group").iter_rows())
    order: list[list[str]] = []
    placed: set[str] = set()
    seen_groups: set[int] = set()
    later: list[list[str]] = []
    for path in sorted(flagged, key=lambda p: (-worth[p], p)):
        if path in placed:
            continue
        if path in together:
            members = sorted(set(conflicts[together[path]]) - placed)
            order.append(members)
            placed.update(members)
            seen_groups.update(group_of[m] for m in members if m in group_of)
        elif group_of.get(path) in seen_groups:
            later.append([path])
            placed.add(path)
        else:
            order.append([path])
            placed.add(path)
            if path in group_of:
                seen_groups.add(group_of[path])
    order += later
    rest = sorted(worth.keys() - placed, key=lambda p: (-worth[p], p))
    mixed = _mix(order, rest, probes, seed)
    out = []
    for rank, (path, probe) in enumerate(mixed, start=1):
        found = told.get(path, [])
        suggestion = next((s for c, _, _, s, _ in sorted(found, key=_first_suggestion) if s), None)
        why = "; ".join(dict.fromkeys(reason for _, _, reason, _, _ in found))
        reason = why or ("a random image, to learn how many errors were not found" if probe else "nothing was found")
        checks = sorted({row[0] for row in found})
        out.append((rank, path, checks, reason, p_wrong.get(path), suggestion, probe, worth[path]))
    return validate(pl.DataFrame(out, schema=QUEUE.columns, orient="row"), QUEUE)


def _first_suggestion(row: Told) -> tuple[bool, float]:
    return row[0] not in _BULK, row[1]  # a duplicate that goes needs no other label


def _worth(rows: Sequence[Told], p_wrong: float) -> float:
    chance = 1 - p_wrong
    for check, score, *_ in rows:
        weight = WORTH.get(check, 0.5 if check.startswith("quality:") else 0.0)
        chance *= 1 - weight * (1 - score)
    return 1 - chance


def _mix(order: list[list[str]], rest: list[str], probes: float, seed: int) -> list[tuple[str, bool]]:
    """Put random images of `rest` after every run of `order` that makes their share `probes`, none inside a run."""
    drawn = [rest[n] for n in np.random.default_rng(seed).permutation(len(rest))] if probes > 0 else []
    flagged = sum(map(len, order))
    # Where little or nothing was flagged somebody should look at a few others: they tell what was missed.
    least = min(_FEW, len(drawn) // 5) if flagged < _FEW else 0
    count = min(len(drawn), max(least, round(flagged * probes / (1 - probes))))
    mixed: list[tuple[str, bool]] = []
    used = drawn[:count]
    waiting = iter(used)
    due = 0.0
    for run in order:
        mixed += [(path, False) for path in run]
        due += len(run) * probes / (1 - probes)
        mixed += [(probe, True) for probe in islice(waiting, int(due))]
        due %= 1
    mixed += [(probe, True) for probe in waiting]
    taken = set(used)
    return mixed + [(path, False) for path in rest if path not in taken]
