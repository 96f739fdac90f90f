"""Pairs of images that a person called not duplicates: they are remembered, and share no group again."""

from __future__ import annotations

import polars as pl

from curate.decisions import PAIR, Folded, Value
from curate.errors import InputError


def tell_apart(manifest: pl.DataFrame, path: str, other: str) -> tuple[str, str, Value]:
    """The choice that two images are no duplicates of one another, for `decide`.

    Raises:
        InputError: the other image is not in the manifest, or both have the same bytes.
    """
    digests = dict(manifest.filter(pl.col("path").is_in([path, other])).select("path", "sha256").iter_rows())
    if other not in digests:
        msg = f"no image {other!r} in the manifest. `curate findings` lists paths."
        raise InputError(msg)
    if path == other or digests.get(path) == digests[other]:
        msg = f"{path} and {other} have the same bytes: they are duplicates, whatever is decided."
        raise InputError(msg)
    return path, f"{PAIR}{other}", {"distinct": digests[other]}


def told_apart(folded: Folded, manifest: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of paths that somebody called not duplicates, sorted; only of images that are there."""
    known = set(manifest["path"].to_list())
    pairs = ((path, aspect.removeprefix(PAIR)) for path, aspect in folded.heads if aspect.startswith(PAIR))
    return sorted((path, other) for path, other in pairs if other in known)
