"""What a scrape would fetch: the engines are asked, images are not, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate.acquire.answers import Hit, advice
from curate.acquire.history import History, read_histories
from curate.acquire.scrape import left_out, names_and_limit, units_of
from curate.config import ScrapeSpec, Spec
from curate.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Planned:
    """An image that would be asked for, and what offered it."""

    label: str
    engine: str
    query: str
    hit: Hit


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a scrape would do first.

    Attributes:
        planned: the images in order. A scrape goes on beyond them where some of them turn out to be of no use.
        answers: (engine, query, class, kind of answer) of every result page that was asked for.
        advice: what to do about engines that gave nothing.
    """

    planned: tuple[Planned, ...]
    answers: tuple[tuple[str, str, str, str], ...]
    advice: tuple[str, ...]


def preview(
    workspace: Workspace, spec: Spec, *, engines: Sequence[str] | None = None, limit: int | None = None,
    refresh: bool = False, endpoints: Mapping[str, str] | None = None,
) -> Preview:  # fmt: skip
    """List what `scrape` would fetch, with the same arguments; writes nothing and needs no lock.

    Raises:
        InputError: as `scrape`.
    """
    from curate.acquire.asking import ask, goes_on
    from curate.acquire.fetch import Fetcher

    names, limit = names_and_limit(spec, engines, limit)
    plan = units_of(workspace, spec, names, endpoints)
    histories = read_histories(workspace, [c.name for c in spec.classes])
    planned: list[Planned] = []
    answers: list[tuple[str, str, str, str]] = []
    details: dict[tuple[str, str], str] = {}
    with Fetcher(spec.scrape, stop=threading.Event()) as fetcher:
        for class_spec, units in plan:
            label, history = class_spec.name, histories[class_spec.name]
            room = limit - (0 if refresh else len(history.present))
            offered: set[str] = set()
            for unit in units:
                for number in range(unit.engine.PAGES):
                    if len(offered) >= room or fetcher.allowance.used_up:
                        break
                    answer = ask(fetcher, unit, number, label=label)
                    details.setdefault((answer.kind, unit.name), answer.detail)
                    answers.append((unit.name, unit.query, label, answer.kind))
                    new = _new(answer.hits, history, offered, spec.scrape, refresh=refresh, limit=limit)
                    for hit in new[: room - len(offered)]:
                        offered.add(hit.url)
                        planned.append(Planned(label=label, engine=unit.name, query=unit.query, hit=hit))
                    if not goes_on(unit, number, answer):
                        break
    gave = {(engine, query, label) for engine, query, label, kind in answers if kind == "results"}
    dead = [(kind, a[0]) for *a, kind in answers if tuple(a) not in gave or kind not in {"results", "no_results"}]
    told = [text for kind, engine in dict.fromkeys(dead) if (text := advice(kind, engine, details[kind, engine]))]
    told += left_out(plan)
    if fetcher.allowance.used_up:
        told.append(f"{fetcher.allowance.used_up} The rest was not looked for.")
    return Preview(planned=tuple(planned), answers=tuple(answers), advice=tuple(told))


def _new(
    hits: Sequence[Hit], history: History, offered: set[str], spec: ScrapeSpec, *, refresh: bool, limit: int
) -> list[Hit]:  # fmt: skip
    """The hits that would be asked for: neither offered before nor settled by an earlier run."""
    distinct = {hit.url: hit for hit in reversed(hits) if hit.url not in offered}
    ordered = dict.fromkeys(hit.url for hit in hits if hit.url in distinct)
    if refresh:  # what is full takes in nothing new
        known = history.last if len(history.present) >= limit else ordered
        return [distinct[url] for url in ordered if url in known and url not in history.purged_urls]
    return [distinct[url] for url in ordered if not history.is_settled(url, spec)]
