"""A list of image URLs instead of a search engine: text with one URL a line, or a table with `url` and `label`.

Tables are CSV or Parquet; the columns `page_url`, `title` and `license` are taken where they are there. The place of
the list is given as the engine's endpoint: `[scrape.endpoints] urls = "my_urls.csv"`, relative to the data set.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

import polars as pl

from curate.acquire.answers import Answer, Hit
from curate.errors import InputError

ENDPOINT = ""
PAGES = 1
FILTERS: tuple[str, ...] = ()

_PARQUET = b"PAR1"
_COLUMNS = ("url", "label", "page_url", "title", "license")


def page_url(query: str, page: int, *, endpoint: str, filters: Mapping[str, str]) -> str:
    """The list itself."""
    return endpoint


def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
    r"""Read the URLs of one class from a list.

    Raises:
        InputError: the list is neither UTF-8 text nor Parquet, or a table without a column `url`.

    Example:
        >>> parse("url,label\nhttp://a/1.jpg,cat\nhttp://a/2.jpg,dog", label="dog").hits[0].url
        'http://a/2.jpg'
    """
    rows = _parquet(body, url) if isinstance(body, bytes) and body.startswith(_PARQUET) else _text(body, url)
    if not rows:
        return Answer(kind="no_results", detail="the list is empty")
    mine = [row for row in rows if row["url"] and row["label"] in {"", label}]
    if not mine:
        return Answer(kind="no_results", detail=f"the list has no URL for {label!r}")
    hits = (
        Hit(url=row["url"], page_url=row["page_url"], title=row["title"], license=row["license"], rank=rank)
        for rank, row in enumerate(mine)
    )
    return Answer(kind="results", hits=tuple(hits))


def has_labels(body: bytes) -> bool:
    r"""Whether the list is a table that says the class of each URL; one that does not serves a single class.

    Example:
        >>> has_labels(b"url,label\nhttps://example.org/1.jpg,cat"), has_labels(b"https://example.org/1.jpg")
        (True, False)
    """
    if body.startswith(_PARQUET):
        return "label" in _frame(body, "given").columns
    first = next((line for line in body.splitlines() if line.strip() and not line.startswith(b"#")), b"")
    return b"://" not in first


def _text(body: bytes | str, url: str) -> list[dict[str, str]]:
    try:
        text = body.decode("utf-8-sig") if isinstance(body, bytes) else body
    except UnicodeDecodeError as error:
        msg = f"the list of URLs {url} is no UTF-8 text ({error}). Save it as UTF-8."
        raise InputError(msg) from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines or "://" in lines[0]:
        return _rows({"url": line.strip()} for line in lines)
    table = csv.DictReader(io.StringIO("\n".join(lines)))
    table.fieldnames = _named(url, table.fieldnames or ())
    return _rows(table)


def _parquet(body: bytes, url: str) -> list[dict[str, str]]:
    return _rows(_frame(body, url).iter_rows(named=True))


def _frame(body: bytes, url: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(io.BytesIO(body))
        table.columns = _named(url, table.columns)
        return table.select(pl.col(name).cast(pl.String) for name in _COLUMNS if name in table.columns)
    except pl.exceptions.PolarsError as error:
        msg = f"the list of URLs {url} cannot be read as Parquet: {error}. Write it again."
        raise InputError(msg) from error


def _named(url: str, columns: Iterable[str]) -> list[str]:
    """The columns in small letters, which is how they are looked for."""
    names = [name.strip().lower() for name in columns]
    if "url" not in names:
        msg = f"the list of URLs {url} has the columns {names}, none is `url`. Name one so."
        raise InputError(msg)
    return names


def _rows(table: Iterable[Mapping[str, str | None]]) -> list[dict[str, str]]:
    return [{name: (row.get(name) or "").strip() for name in _COLUMNS} for row in table]
