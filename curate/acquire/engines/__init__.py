"""The search engines: how each is asked, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from curate.acquire.answers import Answer
from curate.errors import InputError

READY = ("google", "baidu", "urls")
"""Engines of this version; `config.Engine` names those of later ones too."""


class Engine(Protocol):
    """What each module of this package offers; all of it pure."""

    ENDPOINT: str
    """Where queries go unless the spec's `[scrape.endpoints]` says otherwise; empty: there is no usual place."""
    PAGES: int
    """Pages that are asked for at most."""

    @staticmethod
    def page_url(query: str, page: int, *, endpoint: str, filters: Mapping[str, str]) -> str:
        """The address of a result page; raises `InputError` for a filter that the engine does not know."""

    @staticmethod
    def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
        """Read a result page. `url` is where it came from after redirects, `label` the class that is collected."""


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        InputError: this version does not have it.
    """
    if name not in READY:
        msg = f"engine {name!r} comes with a later version. Use one of: {', '.join(READY)}."
        raise InputError(msg)
    return cast(Engine, import_module(f"curate.acquire.engines.{name}"))


def filter_terms(feeder: str, filters: Mapping[str, str], separator: str) -> str:
    """The filters of a spec in an engine's own terms, by icrawler's table of them.

    Args:
        feeder: `icrawler.builtin`'s feeder that knows the filters.
        filters: filter name to value, as icrawler names them.
        separator: what stands between two terms.

    Raises:
        InputError: the engine has no such filter or value; those it has are named.
    """
    if not filters:
        return ""
    known = getattr(import_module("icrawler.builtin"), feeder).get_filter(None)
    try:
        return str(known.apply(dict(filters), sep=separator))
    except (KeyError, ValueError, TypeError, AssertionError) as error:
        reason = error.args[0] if error.args else "not in the form that icrawler documents"
        msg = f"[scrape.filters] {dict(filters)}: {reason}. Mend curate.toml."
        raise InputError(msg) from error
