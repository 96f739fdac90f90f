"""A list of image URLs instead of a search engine: a text file with one URL a line, or a CSV with `url` and `label`.

Its place is given as the engine's endpoint: `[scrape.endpoints] urls = "my_urls.csv"`, relative to the data set.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from curate.acquire.answers import Answer, Hit
from curate.errors import InputError

ENDPOINT = ""
PAGES = 1


def page_url(query: str, page: int, *, endpoint: str, filters: Mapping[str, str]) -> str:
    """The list itself."""
    return endpoint


def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
    r"""Read the URLs of one class from a list.

    Raises:
        InputError: the text is no UTF-8, or a table without a column `url`.

    Example:
        >>> parse("url,label\nhttp://a/1.jpg,cat\nhttp://a/2.jpg,dog", label="dog").hits[0].url
        'http://a/2.jpg'
    """
    try:
        text = body.decode("utf-8-sig") if isinstance(body, bytes) else body
    except UnicodeDecodeError as error:
        msg = f"the list of URLs {url} is no UTF-8 text ({error}). Save it as UTF-8."
        raise InputError(msg) from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return Answer(kind="no_results", detail="the list is empty")
    if not has_labels(lines[0]):
        rows = [{"url": line.strip(), "label": ""} for line in lines]
    else:
        table = csv.DictReader(io.StringIO("\n".join(lines)))
        if "url" not in (table.fieldnames or ()):
            msg = f"the list of URLs {url} has the columns {table.fieldnames}, none is `url`. Name one so."
            raise InputError(msg)
        rows = [{key: (row.get(key) or "").strip() for key in ("url", "label", "page_url", "title")} for row in table]
    mine = [row for row in rows if row["url"] and row["label"] in {"", label}]
    if not mine:
        return Answer(kind="no_results", detail=f"the list has no URL for {label!r}")
    hits = (
        Hit(url=row["url"], page_url=row.get("page_url", ""), title=row.get("title", ""), rank=rank)
        for rank, row in enumerate(mine)
    )
    return Answer(kind="results", hits=tuple(hits))


def has_labels(first_line: str) -> bool:
    """Whether the list is a table, told by its first line; a bare list of URLs serves a data set of one class only.

    Example:
        >>> has_labels("url,label"), has_labels("https://example.org/1.jpg")
        (True, False)
    """
    return "://" not in first_line
