"""Baidu image search: the JSON that its result page loads (acjson)."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from curate.acquire.answers import Answer, Hit, refused
from curate.acquire.engines import filter_terms
from curate.config import Filter

ENDPOINT = "https://image.baidu.com/search/acjson"
PAGE_SIZE = 30
PAGES = 34
FILTERS = ("type", "color", "size")

_SIGNS = {"_z2C$q": ":", "_z&e3B": ".", "AzdH3F": "/"}
_HIDDEN = "wkv1ju2it3hs4g5rq6fp7eo8dn9cm0bla"
_PLAIN = "abcdefghijklmnopqrstuvw1234567890"
_DECODE = str.maketrans(_HIDDEN, _PLAIN)
_ENCODE = str.maketrans(_PLAIN, _HIDDEN)
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_CHALLENGE = ("wappass.baidu.com", "百度安全验证", "antiFlag", "captcha", "verify.baidu.com")


def decode_url(hidden: str) -> str:
    """The URL that `objURL` or `fromURL` hides behind Baidu's substitution table.

    Example:
        >>> decode_url("ippr_z2C$qAzdH3FAzdH3Fjxw4rsj_z&e3B562")
        'http://example.org'
    """
    return _SIGN.sub(lambda m: _SIGNS[m[0]], hidden).translate(_DECODE)


def encode_url(url: str) -> str:
    """The inverse of `decode_url`.

    Example:
        >>> encode_url("http://example.org")
        'ippr_z2C$qAzdH3FAzdH3Fjxw4rsj_z&e3B562'
    """
    hidden = {plain: sign for sign, plain in _SIGNS.items()}
    return "".join(hidden.get(character, character.translate(_ENCODE)) for character in url)


def page_url(query: str, page: int, *, endpoint: str = ENDPOINT, filters: Mapping[str, Filter]) -> str:
    """The address of a result page, counted from 0."""
    terms = filter_terms("BaiduFeeder", filters, "&")
    question = {
        "tn": "resultjson_com", "ipn": "rj", "ie": "utf-8", "oe": "utf-8", "word": query, "queryWord": query,
        "pn": page * PAGE_SIZE, "rn": PAGE_SIZE,
    }  # fmt: skip
    return f"{endpoint}?{urlencode(question)}" + (f"&{terms}" if terms else "")


def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
    """Read one page of acjson."""
    if answer := refused(status):
        return answer
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        value = json.loads(text.replace("\\'", "'"), strict=False)
    except (ValueError, RecursionError):
        if "wappass" in url or any(mark in text for mark in _CHALLENGE):
            return Answer(kind="blocked", detail="a page of verification instead of JSON")
        return Answer(kind="changed", detail=f"no JSON: {text.strip()[:60]!r}")
    if not isinstance(value, dict):
        return Answer(kind="changed", detail=f"JSON of type {type(value).__name__}")
    if value.get("antiFlag"):
        return Answer(kind="blocked", detail=f"antiFlag {value['antiFlag']}: {value.get('message', '')}".strip(" :"))
    items = value.get("data")
    if not isinstance(items, list):
        return Answer(kind="changed", detail=f"no list `data` among the keys {sorted(value)[:8]}")
    items = [item for item in items if isinstance(item, dict) and item]  # the last one is always {}
    if not items:
        return Answer(kind="no_results", detail="no more results" if page else "the engine lists none")
    found = [(place, hit) for place, item in enumerate(items) if (hit := _hit(item, page * PAGE_SIZE + place))]
    if not found:
        return Answer(kind="changed", detail=f"{len(items)} entries without a URL, keys {sorted(items[0])[:8]}")
    return Answer(kind="results", hits=tuple(hit for _, hit in found))


def _hit(item: dict[str, Any], rank: int) -> Hit | None:
    candidates = (_plain(item.get("objURL")), *(item.get(k) for k in ("hoverURL", "middleURL", "thumbURL")))
    url = next((c for c in candidates if isinstance(c, str) and c.startswith(("http://", "https://"))), None)
    if url is None:
        return None
    title = html.unescape(re.sub(r"<[^>]*>", "", str(item.get("fromPageTitle") or item.get("fromPageTitleEnc") or "")))
    page_url = _plain(item.get("fromURL"))
    return Hit(url=url, page_url=page_url, title=title, rank=rank, thumbnail=str(item.get("thumbURL") or ""))


def _plain(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return value if value.startswith(("http://", "https://")) else decode_url(value)
