"""Bing image search: the result page that needs no JavaScript, each image a JSON object in an attribute `m`.

Needs no key. Bing shows automatic visitors a captcha now and then, which is `blocked`.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from curate.acquire.answers import Answer, Hit, refused
from curate.acquire.engines import filter_terms
from curate.config import Filter

ENDPOINT = "https://www.bing.com/images/async"
PAGE_SIZE = 35
PAGES = 28
FILTERS = ("type", "color", "size", "license", "layout", "people", "date")

_ATTRIBUTE = re.compile(r"""\bm\s*=\s*(?:"(\{[^"]*\}|&#123;[^"]*)"|'(\{[^']*\})')""")
_CHALLENGE = re.compile(
    r"""\b(?:class|id|name)\s*=\s*["'][^"']*(?:captcha|cf-turnstile)|\b(?:src|action)\s*=\s*["'][^"']*(?:captcha|/challenge/)""",
    re.IGNORECASE,
)
_BLOCKED = ("/challenge/", "captcha", "cf-turnstile", "Verify you are human", "unusual traffic")
_NONE = ("There are no results for", "No results found for", "没有与此相关的结果", "no_results")
_MARKED = re.compile("[\ue000\ue001]|<[^>]*>")  # Bing puts found words between private characters


def page_url(query: str, page: int, *, endpoint: str = ENDPOINT, filters: Mapping[str, Filter]) -> str:
    """The address of a result page, counted from 0."""
    question: dict[str, str | int] = {"q": query, "first": page * PAGE_SIZE + 1, "count": PAGE_SIZE, "mmasync": 1}
    if terms := filter_terms("BingFeeder", filters, ""):
        question["qft"] = terms.replace("+filterui", " filterui")  # a plus is how a URL writes a space
    return f"{endpoint}?{urlencode(question)}"


def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
    """Read one result page."""
    if answer := refused(status):
        return answer
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    told = [value for match in _ATTRIBUTE.finditer(text) if (value := _json(match[1] or match[2]))]
    found = {hit.url: hit for value in reversed(told) if (hit := _hit(value))}
    if found:
        ordered = dict.fromkeys(str(value.get("murl")) for value in told if value.get("murl") in found)
        first = page * PAGE_SIZE
        return Answer(kind="results", hits=tuple(_at(found[u], first + n) for n, u in enumerate(ordered)))
    if _is_challenge(url) or _CHALLENGE.search(text):
        return Answer(kind="blocked", detail="captcha")
    if any(phrase in text for phrase in _NONE):  # before bare words, which the query itself may be
        return Answer(kind="no_results", detail="the page says so")
    if any(mark in text for mark in _BLOCKED):
        return Answer(kind="blocked", detail="captcha")
    if page and not told and ("dgControl" in text or 0 < len(text.strip()) < 500):
        return Answer(kind="no_results", detail="no more results")
    return Answer(kind="changed", detail=f"{len(text)} characters, {len(told)} JSON attributes, no image in them")


def _json(attribute: str) -> dict[str, Any] | None:
    try:
        value = json.loads(html.unescape(attribute), strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _hit(value: Mapping[str, Any]) -> Hit | None:
    url = value.get("murl")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    title = value.get("t") or value.get("desc") or ""
    return Hit(
        url=url, page_url=_text(value.get("purl")), title=_MARKED.sub("", html.unescape(_text(title))),
        thumbnail=_text(value.get("turl")),
    )  # fmt: skip


def _at(hit: Hit, rank: int) -> Hit:
    return Hit(url=hit.url, page_url=hit.page_url, title=hit.title, rank=rank, thumbnail=hit.thumbnail)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_challenge(url: str) -> bool:
    try:
        return urlsplit(url).path.startswith(("/challenge", "/turing"))
    except ValueError:
        return False
