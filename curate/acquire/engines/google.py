"""Google image search: the JSON in its result page's scripts, then patterns where there is none.

Google has asked for JavaScript since January 2025, so without a browser `blocked` is an ordinary answer.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from curate.acquire.answers import Answer, Hit, refused
from curate.acquire.engines import filter_terms
from curate.config import Filter

ENDPOINT = "https://www.google.com/search"
PAGE_SIZE = 100
PAGES = 10
FILTERS = ("type", "color", "size", "license", "date")

_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_DATA = re.compile(r"\bdata\s*:\s*(?:function\s*\(\)\s*\{\s*return\s*)?(?=\[)|\bvar\s+\w+\s*=\s*(?=[\[{])")
_TRIPLE = re.compile(r'\[\s*"(https?:(?:\\?/){2}[^"\s]+)"\s*,\s*(\d+)\s*,\s*(\d+)\s*\]')
_RG_META = re.compile(r'"ou"\s*:\s*"(https?:[^"]+)"')
_IMGRES = re.compile(r"[?&](?:amp;)?imgurl=([^&\"'\s]+)(?:&(?:amp;)?imgrefurl=([^&\"'\s]+))?")
_BLOCKED = {
    "consent page": ("consent.google.", 'action="https://consent.', "/save?continue="),
    "captcha": ("captcha-form", "unusual traffic", "g-recaptcha", "/sorry/index"),
    "JavaScript shell": ("/httpservice/retry/enablejs", "enablejs?sei="),
}
_NONE = (
    "did not match any image results", "did not match any documents", "No results found for",
    "找不到和您查询的", "找不到符合", "it looks like there aren't any", "Looks like there aren’t any",
)  # fmt: skip


def page_url(query: str, page: int, *, endpoint: str = ENDPOINT, filters: Mapping[str, Filter]) -> str:
    """The address of a result page, counted from 0."""
    question: dict[str, str | int] = {"q": query, "tbm": "isch", "ijn": page, "start": page * PAGE_SIZE}
    if terms := filter_terms("GoogleFeeder", filters, ","):
        question["tbs"] = terms
    return f"{endpoint}?{urlencode(question)}"


def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
    """Read one result page: JSON in scripts first, then patterns; page and thumbnail where they are told."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    place = urlsplit(url)
    if (place.hostname or "").startswith("consent.google.") or place.path.startswith("/sorry"):
        return Answer(kind="blocked", detail=f"sent to {place.hostname}{place.path}")
    if answer := refused(status):
        return answer
    scripts = [s for s in _SCRIPT.findall(text) if s.strip()]
    values = [value for script in scripts for value in _embedded(script)]
    for found in (
        [hit for value in values for hit in _records(value)],
        [Hit(url=_unescape(m[1])) for script in scripts for m in _TRIPLE.finditer(script)],
        [Hit(url=_unescape(m[1])) for m in _RG_META.finditer(text)],
        [Hit(url=_percent(m[1]), page_url=_percent(m[2] or "")) for m in _IMGRES.finditer(text)],
    ):
        hits = _ranked(found, page * PAGE_SIZE)
        if hits:
            return Answer(kind="results", hits=hits)
    for what, marks in _BLOCKED.items():
        if any(mark in text for mark in marks):
            return Answer(kind="blocked", detail=what)
    if any(phrase in text for phrase in _NONE):
        return Answer(kind="no_results", detail="the page says so")
    if page and values:
        return Answer(kind="no_results", detail="no more results")
    return Answer(kind="changed", detail=f"{len(text)} characters, {len(scripts)} scripts, no image in them")


def _embedded(script: str) -> Iterator[Any]:
    """Every JSON value that a script hands over: AF_initDataCallback's data, or what a variable is set to."""
    decoder = json.JSONDecoder(strict=False)
    after = 0
    for match in _DATA.finditer(script):
        if match.start() < after:
            continue
        try:
            value, after = decoder.raw_decode(script, match.end())
        except (ValueError, RecursionError):  # a variable set to what is no JSON
            continue
        yield value


def _records(value: Any) -> Iterator[Hit]:
    """Image records in page order: a list that holds a thumbnail's and an image's [url, height, width].

    Walks without recursion, since the nesting is the page's to choose.
    """
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            triples = [part[0] for part in item if _is_triple(part)]
            images = [u for u in triples if not _is_thumbnail(u)]
            if images:
                page_url, title = _source(item)
                thumbnail = next((u for u in triples if _is_thumbnail(u)), "")
                if not thumbnail and len(images) > 1:  # thumbnail first, then the image, whatever the host
                    thumbnail = images[0]
                yield Hit(url=images[-1], page_url=page_url, title=title, thumbnail=thumbnail)
            else:
                stack.extend(reversed(item))


def _is_triple(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 3
        and isinstance(part[0], str)
        and "://" in part[0]
        and all(isinstance(n, int) for n in part[1:])
    )


def _is_thumbnail(url: str) -> bool:
    host = _host(url)
    return host.endswith(".gstatic.com") or (
        host.endswith((".google.com", ".googleusercontent.com")) and "/proxy" in url
    )


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such as an unfinished IPv6 address
        return ""


def _source(record: list[Any]) -> tuple[str, str]:
    """Page URL and title from the tables of a record: under "2003" a list [_, id, page URL, title, ...]."""
    for table in (part for part in record if isinstance(part, dict)):
        for entry in table.values():
            if isinstance(entry, list):
                for place, part in enumerate(entry):
                    if isinstance(part, str) and part.startswith(("http://", "https://")):
                        title = entry[place + 1] if len(entry) > place + 1 else ""
                        return part, title if isinstance(title, str) else ""
    return "", ""


def _unescape(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return html.unescape(re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text).replace("\\/", "/"))


def _percent(text: str) -> str:
    return unquote(html.unescape(text))


def _ranked(found: list[Hit], first: int) -> tuple[Hit, ...]:
    distinct = {hit.url: hit for hit in reversed(found) if hit.url and not _is_thumbnail(hit.url)}
    ordered = dict.fromkeys(hit.url for hit in found if hit.url in distinct)
    return tuple(
        Hit(url=u, page_url=distinct[u].page_url, title=distinct[u].title, rank=first + n,
            thumbnail=distinct[u].thumbnail)
        for n, u in enumerate(ordered)
    )  # fmt: skip
