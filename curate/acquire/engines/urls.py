"""A list of image URLs instead of a search engine: text with one URL a line, or a table with `url` and `label`.

Tables are CSV or Parquet; the columns `page_url`, `title` and `license` are taken where they are there. The place of
the list is given as the engine's endpoint: `[scrape.endpoints] urls = "my_urls.csv"`, relative to the data set. It is
read once, before anything is asked.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from curate.acquire.answers import Answer, Hit
from curate.config import Filter
from curate.errors import InputError

ENDPOINT = ""
PAGES = 1
FILTERS: tuple[str, ...] = ()

_PARQUET = b"PAR1"
_COLUMNS = ("url", "label", "page_url", "title", "license")
_TOLD = 5
"""Labels that belong to no class that are named, of however many."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a list offers.

    Attributes:
        hits: class to its URLs, in the order of the list; under the empty name those of a list without labels.
        nameless: rows without a URL. unlabelled: rows without a label in a list that has labels.
    """

    hits: Mapping[str, tuple[Hit, ...]] = field(default_factory=dict)
    has_labels: bool = False
    nameless: int = 0
    unlabelled: int = 0

    def left_out(self, classes: Iterable[str]) -> str:
        """What of the list serves none of the classes, as sentences for people; empty where all does."""
        known = {*classes, ""}
        others = Counter({label: len(hits) for label, hits in self.hits.items() if label not in known})
        told = []
        if others:
            named = ", ".join(f"{n} of {label!r}" for label, n in others.most_common(_TOLD))
            more = f" and {len(others) - _TOLD} more labels" if len(others) > _TOLD else ""
            told.append(
                f"{others.total()} URLs of the list are of no class of curate.toml ({named}{more}): they are left out. "
                "Write the labels as the classes are named."
            )
        for n, what in ((self.unlabelled, "label"), (self.nameless, "URL")):
            if n:
                told.append(f"{n} rows of the list have no {what}: they are left out.")
        return " ".join(told)


def page_url(query: str, page: int, *, endpoint: str, filters: Mapping[str, Filter]) -> str:
    """The list itself."""
    return endpoint


def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
    r"""Read the URLs of one class from a list, see `read_list`.

    Example:
        >>> parse("url,label\nhttp://a/1.jpg,cat\nhttp://a/2.jpg,dog", label="dog").hits[0].url
        'http://a/2.jpg'
    """
    return answer(read_list(body, url), label)


def answer(listed: Listed, label: str) -> Answer:
    """What a list says for one class."""
    hits = listed.hits.get(label if listed.has_labels else "", ())
    if hits:
        return Answer(kind="results", hits=hits)
    return Answer(kind="no_results", detail=f"it has no URL for {label!r}" if listed.hits else "it is empty")


def read_list(body: bytes | str, name: str, *, classes: int = 1) -> Listed:
    """Read a list.

    Args:
        body: its content.
        name: what it is called in error messages.
        classes: how many classes it has to serve; more than one need labels.

    Raises:
        InputError: the list is neither UTF-8 text nor CSV nor Parquet, or has no column `url`, or does not say which
            of several classes a URL belongs to.
    """
    is_parquet = isinstance(body, bytes) and body.startswith(_PARQUET)
    columns, rows = _parquet(body, name) if isinstance(body, bytes) and is_parquet else _text(body, name)
    has_labels = "label" in columns
    if classes > 1 and not has_labels:
        what = "is a bare list of URLs" if columns == ["url"] else f"has the columns {columns}, none is `label`"
        msg = f"the list of URLs {name} {what}, and there are {classes} classes: make it a table with url,label."
        raise InputError(msg)
    hits: dict[str, list[Hit]] = {}
    nameless = unlabelled = 0
    for row in rows:
        if not row["url"]:
            nameless += 1
        elif has_labels and not row["label"]:
            unlabelled += 1
        else:
            mine = hits.setdefault(row["label"], [])
            rest = {name: row[name] for name in ("page_url", "title", "license")}
            mine.append(Hit(url=row["url"], rank=len(mine), **rest))
    return Listed(
        hits={label: tuple(mine) for label, mine in hits.items()}, has_labels=has_labels, nameless=nameless,
        unlabelled=unlabelled,
    )  # fmt: skip


def _text(body: bytes | str, name: str) -> tuple[list[str], Iterator[dict[str, str]]]:
    try:
        text = body.decode("utf-8-sig") if isinstance(body, bytes) else body
    except UnicodeDecodeError as error:
        msg = f"the list of URLs {name} is no UTF-8 text ({error}). Save it as UTF-8."
        raise InputError(msg) from error
    # Not `splitlines`, which also splits where a title has a line separator of Unicode.
    lines = [line.strip() for line in io.StringIO(text, newline=None)]
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not wanted or "://" in wanted[0]:
        return ["url"], _rows({"url": line} for line in wanted)
    records = _records(text, name)
    columns = _named(name, next(records))
    return columns, _rows(dict(zip(columns, record, strict=False)) for record in records)


def _records(text: str, name: str) -> Iterator[Sequence[str]]:
    """The rows of a CSV file, its header first, without empty ones and comments."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        yield from (row for row in reader if any(row) and not row[0].startswith("#"))
    except csv.Error as error:
        msg = f"the list of URLs {name} cannot be read as CSV: line {reader.line_num}: {error}. Mend that line."
        raise InputError(msg) from error


def _parquet(body: bytes, name: str) -> tuple[list[str], Iterator[dict[str, str]]]:
    try:
        table = pl.read_parquet(io.BytesIO(body))
        table.columns = _named(name, table.columns)
        table = table.select(pl.col(column).cast(pl.String) for column in _COLUMNS if column in table.columns)
    except pl.exceptions.PolarsError as error:
        msg = f"the list of URLs {name} cannot be read as Parquet: {error}. Write it again."
        raise InputError(msg) from error
    return table.columns, _rows(table.iter_rows(named=True))


def _named(name: str, columns: Iterable[str]) -> list[str]:
    """The columns in small letters, which is how they are looked for."""
    names = [column.strip().lower() for column in columns]
    if "url" not in names:
        msg = f"the list of URLs {name} has the columns {names}, none is `url`. Name one so."
        raise InputError(msg)
    return names


def _rows(table: Iterable[Mapping[str, str | None]]) -> Iterator[dict[str, str]]:
    return ({name: (row.get(name) or "").strip() for name in _COLUMNS} for row in table)
