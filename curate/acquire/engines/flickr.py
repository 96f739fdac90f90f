"""Flickr: its official REST API (`flickr.photos.search`), which says the licence of every picture.

The key comes from the environment variable FLICKR_API_KEY; it is added when a page is asked for, and never written
down. Documented at https://www.flickr.com/services/api/flickr.photos.search.html
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from curate.acquire.answers import Answer, Hit, refused
from curate.acquire.engines import chosen
from curate.config import Filter

ENDPOINT = "https://api.flickr.com/services/rest/"
PAGE_SIZE = 100
PAGES = 40  # the API repeats itself after 4,000 results
FILTERS = ("type", "color", "license", "date")

LICENSES = {
    0: "All Rights Reserved", 1: "CC BY-NC-SA 2.0", 2: "CC BY-NC 2.0", 3: "CC BY-NC-ND 2.0", 4: "CC BY 2.0",
    5: "CC BY-SA 2.0", 6: "CC BY-ND 2.0", 7: "No known copyright restrictions", 8: "United States Government Work",
    9: "CC0 1.0", 10: "Public Domain Mark 1.0", 11: "CC BY 4.0", 12: "CC BY-SA 4.0", 13: "CC BY-ND 4.0",
    14: "CC BY-NC 4.0", 15: "CC BY-NC-SA 4.0", 16: "CC BY-NC-ND 4.0",
}  # fmt: skip
"""What `flickr.photos.licenses.getInfo` answers."""

_ALLOWING = {
    "creativecommons": (1, 2, 3, 4, 5, 6, 9, 11, 12, 13, 14, 15, 16),
    "publicdomain": (9, 10),
    "noncommercial": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16),
    "commercial": (4, 5, 6, 7, 8, 9, 10, 11, 12, 13),
    "noncommercial,modify": (1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 14, 15),
    "commercial,modify": (4, 5, 7, 8, 9, 10, 11, 12),
}
_COLORS = {
    "red": "0", "brown": "1", "orange": "2", "pink": "b", "yellow": "4", "green": "5", "teal": "7", "blue": "8",
    "purple": "9", "white": "c", "gray": "d", "black": "e",
}  # fmt: skip
_KINDS = {"photo": "0", "linedrawing": "2", "clipart": "2"}
_DAYS = {"pastday": 1, "pastweek": 7, "pastmonth": 30, "pastyear": 365}
_SIZES = ("o", "k", "h", "l", "c", "z", "m", "n", "s")
"""Sizes that the API may offer, largest first: original, 2048, 1600, 1024, 800, 640, 500, 320, 240 pixels."""


def page_url(query: str, page: int, *, endpoint: str = ENDPOINT, filters: Mapping[str, Filter]) -> str:
    """The address of a result page, counted from 0, without the key."""
    question: dict[str, str | int] = {
        "method": "flickr.photos.search", "format": "json", "nojsoncallback": 1, "text": query, "sort": "relevance",
        "media": "photos", "per_page": PAGE_SIZE, "page": page + 1,
        "extras": ",".join(["license", "owner_name", *(f"url_{size}" for size in _SIZES)]),
    }  # fmt: skip
    for name, value in filters.items():
        if name == "license":
            question["license"] = ",".join(map(str, chosen("flickr", name, value, _ALLOWING)))
        elif name == "color" and value == "blackandwhite":
            question["styles"] = "blackandwhite"
        elif name == "color":
            question["color_codes"] = chosen("flickr", name, value, _COLORS, "blackandwhite")
        elif name == "type":
            question["content_types"] = chosen("flickr", name, value, _KINDS)
        elif not isinstance(value, str):
            question["min_upload_date"], question["max_upload_date"] = f"{value[0]} 00:00:00", f"{value[1]} 23:59:59"
        else:
            days = chosen("flickr", name, value, _DAYS)
            question["min_upload_date"] = int(time.time() // 86_400 - days) * 86_400
    return f"{endpoint}?{urlencode(question)}"


def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
    """Read one page of the API's JSON."""
    if answer := refused(status):
        return answer
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return Answer(kind="changed", detail=f"no JSON: {text.strip()[:60]!r}")
    if not isinstance(value, dict):
        return Answer(kind="changed", detail=f"JSON of type {type(value).__name__}")
    if value.get("stat") == "fail":
        told = f"{value.get('message', 'no reason given')} (code {value.get('code')})"
        return Answer(kind="unreachable" if value.get("code") in {0, 105, 106, 201} else "blocked", detail=told)
    photos = value.get("photos")
    items = photos.get("photo") if isinstance(photos, dict) else None
    if not isinstance(photos, dict) or not isinstance(items, list):
        return Answer(kind="changed", detail=f"no list `photos.photo` among the keys {sorted(value)[:8]}")
    pages = photos.get("pages")
    if not items or (isinstance(pages, int) and page >= pages):
        return Answer(kind="no_results", detail="no more results" if page else "the engine lists none")
    entries = [(n, item) for n, item in enumerate(items) if isinstance(item, dict)]
    found = tuple(hit for n, item in entries if (hit := _hit(item, page * PAGE_SIZE + n)))
    if not found:
        return Answer(kind="changed", detail=f"{len(items)} entries without a URL")
    return Answer(kind="results", hits=found)


def _hit(item: Mapping[str, Any], rank: int) -> Hit | None:
    offered = [u for size in _SIZES if isinstance(u := item.get(f"url_{size}"), str) and u.startswith("http")]
    if not offered:
        return None
    page = f"https://www.flickr.com/photos/{item.get('owner', '')}/{item.get('id', '')}" if item.get("id") else ""
    title, owner = (item.get(key) if isinstance(item.get(key), str) else "" for key in ("title", "ownername"))
    number = str(item.get("license", ""))
    name = LICENSES.get(int(number), f"Flickr licence {number}") if number.isdecimal() else ""
    return Hit(
        url=offered[0], page_url=page, title=str(title), rank=rank, thumbnail=offered[-1],
        license=f"{name}, by {owner}" if name and owner else name,
    )  # fmt: skip
