"""The search engines: how each is asked, and how its answer is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, TypeVar, cast
from urllib.parse import urlencode

from curate.acquire.answers import Answer
from curate.config import Filter
from curate.errors import EnvironmentMissing, InputError

READY = ("google", "baidu", "bing", "flickr", "urls")
"""The engines that there are, as `config.Engine` names them."""

_KEYS = {"flickr": ("FLICKR_API_KEY", "api_key", "https://www.flickr.com/services/apps/create/")}
"""Engine to the environment variable of its key, the parameter that carries it, and where a key is given out."""

T = TypeVar("T")


class Engine(Protocol):
    """What each module of this package offers; all of it pure."""

    ENDPOINT: str
    """Where queries go unless the spec's `[scrape.endpoints]` says otherwise; empty: there is no usual place."""
    PAGES: int
    """Pages that are asked for at most."""
    FILTERS: tuple[str, ...]
    """Names of the filters that it knows, as icrawler names them."""

    @staticmethod
    def page_url(query: str, page: int, *, endpoint: str, filters: Mapping[str, Filter]) -> str:
        """The address of a result page; raises `InputError` for a value of a filter that the engine does not know."""

    @staticmethod
    def parse(body: bytes | str, *, status: int = 200, url: str = "", page: int = 0, label: str = "") -> Answer:
        """Read a result page. `url` is where it came from after redirects, `label` the class that is collected."""


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        InputError: there is none.
    """
    if name not in READY:
        msg = f"there is no engine {name!r}. Use one of: {', '.join(READY)}."
        raise InputError(msg)
    return cast(Engine, import_module(f"curate.acquire.engines.{name}"))


def secret(name: str) -> str:
    """The part of a query string that carries the engine's key; empty where it needs none. Never written down.

    Raises:
        EnvironmentMissing: the key is not in the environment.
    """
    if name not in _KEYS:
        return ""
    variable, parameter, place = _KEYS[name]
    key = os.environ.get(variable, "").strip()
    if not key:
        msg = f"engine {name}: the environment variable {variable} is not set. Get a key at {place} and set it."
        raise EnvironmentMissing(msg)
    return urlencode({parameter: key})


def filters_of(name: str, filters: Mapping[str, Filter | Mapping[str, Filter]]) -> dict[str, Filter]:
    """The filters of a spec that go to one engine: those of all, and those of its own table.

    Args:
        name: the engine.
        filters: filter name to value, or engine to its own table, as in `[scrape.filters.bing]`.

    Raises:
        InputError: the engine has no such filter; those it has are named.
    """
    mine: dict[str, Filter] = {}
    for key, value in filters.items():
        if not isinstance(value, Mapping):
            mine[key] = value
        elif key not in READY:
            msg = f"[scrape.filters.{key}]: there is no engine {key!r}. Use one of: {', '.join(READY)}."
            raise InputError(msg)
    own = filters.get(name)
    mine |= own if isinstance(own, Mapping) else {}
    known = engine(name).FILTERS
    if unknown := [key for key in mine if key not in known]:
        has = f"has {', '.join(known)}" if known else "has none"
        msg = (
            f"[scrape.filters] {unknown[0]}: engine {name} has no such filter; it {has}. Take it out, or give each "
            f"engine its own table, as in [scrape.filters.{name}]."
        )
        raise InputError(msg)
    return mine


def chosen(name: str, key: str, value: Filter, choices: Mapping[str, T], *others: str) -> T:
    """What an engine's own table of a filter says for `value`; raises `InputError` that names its values."""
    if not isinstance(value, str) or value not in choices:
        shown = value if isinstance(value, str) else [day.isoformat() for day in value]
        msg = f"[scrape.filters] {key} = {shown!r}: engine {name} knows {', '.join([*choices, *others])}."
        raise InputError(msg)
    return choices[value]


def filter_terms(feeder: str, filters: Mapping[str, Filter], separator: str) -> str:
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
