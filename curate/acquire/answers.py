"""What a search engine answered: the hits of a page, or why there are none, told apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

AnswerKind = Literal["results", "no_results", "blocked", "changed", "unreachable"]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One image that a result page offers.

    Attributes:
        url: address of the image itself.
        page_url: the page that shows it; empty where the engine does not say.
        title: the title of that page, without markup.
        rank: place among the hits of the query, counted from 0 over all of its pages.
        thumbnail: address of the engine's small copy; empty where there is none.
        license: what the engine (or the list) states about the licence; empty where it says nothing.
    """

    url: str
    page_url: str = ""
    title: str = ""
    rank: int = 0
    thumbnail: str = ""
    license: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one result page said.

    Attributes:
        kind: `results`; `no_results` (the engine says that there are none, or no more); `blocked` (consent page,
            captcha, JavaScript shell, antiFlag, HTTP 403 or 429); `changed` (a page in which nothing can be found,
            so probably a new format); `unreachable` (no page at all).
        hits: the images, in the engine's order; empty unless `kind` is `results`.
        detail: what told so, for the log.
    """

    kind: AnswerKind
    hits: tuple[Hit, ...] = ()
    detail: str = ""


def refused(status: int) -> Answer | None:
    """The answer that an HTTP status alone gives, or None where the page has to be read.

    Example:
        >>> refused(429).kind, refused(502).kind, refused(200)
        ('blocked', 'unreachable', None)
    """
    if status in {401, 403, 429}:
        return Answer(kind="blocked", detail=f"HTTP {status}")
    return None if status == 200 else Answer(kind="unreachable", detail=f"HTTP {status}")


_OTHER_WAYS = "another engine (`--engine`), or a list of URLs (`--engine urls`)"


_BAD_KEY = re.compile(r"\(code (?:100|9[5-9])\)")  # Flickr's codes for keys and signatures


def advice(outcome: str, engine: str, detail: str = "") -> str:
    """What a person can do about an answer of an engine, in plain sentences.

    Args:
        outcome: one of `AnswerKind`.
        engine: the engine's name in the spec.
        detail: of such an answer.

    Returns:
        One or two sentences; empty for `results`, where nothing has to be done.
    """
    name = engine.capitalize()
    if engine == "urls":
        return "" if outcome == "results" else f"The list of URLs: {detail}."
    if engine == "flickr" and outcome == "blocked" and _BAD_KEY.search(detail):
        return f"Flickr does not take the key: {detail}. Check the environment variable FLICKR_API_KEY."
    why = " (it has asked for JavaScript since January 2025)" if engine == "google" else ""
    return {
        "results": "",
        "no_results": f"{name} has no images for this query. Try other words, or {_OTHER_WAYS}.",
        "blocked": (
            f"{name} refuses automatic queries from here{why}: that is no empty result. "
            f"Wait some hours, or take {_OTHER_WAYS}."
        ),
        "changed": (
            f"{name} answered with a page in which no images could be found: its format has probably changed. "
            f"Report it with the query, and meanwhile take {_OTHER_WAYS}."
        ),
        "unreachable": (
            f"{name} could not be reached. Check the network and `[scrape.endpoints]` in curate.toml, then run again: "
            "what is there already is not asked for twice. Proxies (HTTP_PROXY and the like) are not used."
        ),
    }[outcome]
