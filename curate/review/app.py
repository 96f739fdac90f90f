"""The FiftyOne App on the findings of a data set.

FiftyOne's data set is a picture of ours, made anew from tables and log by every `push`: what is decided in the App
goes to `decisions.jsonl` first. Only tags, views and fields that a person adds in the App live there alone, and stay.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from curate.decisions import DecisionLog, Folded, fold
from curate.errors import EnvironmentMissing
from curate.review.cards import Card, cards_of
from curate.review.database import connect
from curate.review.layout import TO_REVIEW, dress, save_views, score_field
from curate.wording import decision_text, label_in_force
from curate.workspace import Workspace, digest

PLAIN = ("path", "reason", "decision", "suggestion", "source")
NUMBERS = ("worst", "p_wrong")
LISTS = ("checks", "duplicates")
GRID_ZOOM = 8
"""Size of the pictures in the grid, 0 to 10: large enough to read the reason on them."""


def _dataset_of(fo: Any, workspace: Workspace) -> Any:
    """The FiftyOne data set of this folder; made where there is none.

    In a database shared by several projects, two folders of one name get two data sets; a folder that was moved
    keeps its own.
    """
    root = str(workspace.root.resolve())
    plain = f"curate-{workspace.name}"
    for name in (plain, f"{plain}-{digest(root)[:6]}"):
        if not fo.dataset_exists(name):
            dataset = fo.Dataset(name, persistent=True)
            break
        dataset = fo.load_dataset(name)
        dataset.reload()
        owner = dataset.info.get("curate_root")
        if owner == root or (owner and not (Path(owner) / "curate.toml").is_file()):
            break
    dataset.info = {**dataset.info, "curate_root": root, "curate_name": workspace.name}  # in-place changes are lost
    dataset.save()
    return dataset


def _declare(fo: Any, dataset: Any, checks: set[str]) -> None:
    """Make the fields, so that an empty one is there too."""
    for name in PLAIN:
        dataset.add_sample_field(name, fo.StringField)
    for name in NUMBERS:
        dataset.add_sample_field(name, fo.FloatField)
    for name in LISTS:
        dataset.add_sample_field(name, fo.ListField, subfield=fo.StringField)
    dataset.add_sample_field("rank", fo.IntField)
    for name in ("label", "prediction"):
        dataset.add_sample_field(name, fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    dataset.add_sample_field("scores", fo.EmbeddedDocumentField, embedded_doc_type=fo.DynamicEmbeddedDocument)
    for check in checks:
        dataset.add_sample_field(score_field(check), fo.FloatField)
    dataset.create_index("path")
    dataset.create_index("rank")


def push(
    workspace: Workspace, *, manifest: pl.DataFrame, findings: pl.DataFrame | None, predictions: pl.DataFrame | None,
    queue: pl.DataFrame | None, decisions_log: DecisionLog,
) -> Any:  # fmt: skip
    """Show a data set in FiftyOne: one sample for each readable image, up to date with the tables given.

    Args:
        workspace: the data set.
        manifest: the images; those that cannot be read are left out.
        findings: table of findings; None or empty before `curate audit`.
        predictions: table of predictions; None or empty before `curate audit`.
        queue: columns `rank, path, checks, reason, p_wrong, suggestion, probe`; None or empty where there is no queue.
        decisions_log: the decisions so far.

    Returns:
        The `fiftyone.Dataset`, with the saved views "to review", "queue", "decided", and one for each check.

    Raises:
        EnvironmentMissing: there is no MongoDB that runs.
    """
    fo = connect(workspace)
    dataset = _dataset_of(fo, workspace)
    cards = cards_of(findings, queue)
    checks = {check for card in cards.values() for check in card.scores}
    _declare(fo, dataset, checks)
    images = {row["path"]: row for row in manifest.filter(pl.col("status") == "ok").sort("path").iter_rows(named=True)}
    ids = {path: ident for path, ident in zip(*dataset.values(["path", "id"]), strict=True) if path}
    dataset.delete_samples([ident for path, ident in ids.items() if path not in images])
    new = [path for path in images if path not in ids]
    if new:
        added = dataset.add_samples(
            [fo.Sample(filepath=str(workspace.image(p).absolute()), path=p) for p in new], dynamic=False
        )
        ids |= dict(zip(new, added, strict=True))
    said = {} if predictions is None else {
        row[0]: row[1:] for row in predictions.select("path", "predicted", "confidence").iter_rows()
    }  # fmt: skip
    folded = fold(decisions_log, manifest)
    columns: dict[str, dict[str, Any]] = {}
    for path, row in images.items():
        values = _values(fo, workspace, row, cards.get(path, Card()), said.get(path), folded)
        for name, value in values.items():
            columns.setdefault(name, {})[ids[path]] = value
    for name, by_id in columns.items():
        dataset.set_values(name, by_id, key_field="id")
    dress(fo, dataset)
    save_views(fo, dataset, checks)
    return dataset


def _values(
    fo: Any, workspace: Workspace, row: dict[str, Any], card: Card, said: tuple[str, float] | None, folded: Folded
) -> dict[str, Any]:
    path = row["path"]
    label = label_in_force(folded, path, row["label"])
    return {
        "filepath": str(workspace.image(path).absolute()),
        "metadata": fo.ImageMetadata(
            size_bytes=row["bytes"], width=row["width"], height=row["height"],
            mime_type=f"image/{(row['format'] or 'unknown').lower()}",
        ),
        "label": fo.Classification(label=label) if label else None,
        "prediction": fo.Classification(label=said[0], confidence=float(said[1])) if said else None,
        "reason": "\n".join(card.reasons) or None,
        "checks": sorted(card.scores, key=lambda check: (card.scores[check], check)),
        "worst": min(card.scores.values(), default=None),
        "p_wrong": card.p_wrong,
        "rank": card.rank,
        "suggestion": card.suggestion,
        "duplicates": sorted(card.duplicates),
        "decision": decision_text(folded, path),
        "source": row["source"],
        "scores": fo.DynamicEmbeddedDocument(
            **{score_field(check).removeprefix("scores."): score for check, score in card.scores.items()}
        ),
    }  # fmt: skip


def refresh(fo: Any, dataset: Any, *, manifest: pl.DataFrame, decisions_log: DecisionLog, paths: list[str]) -> None:
    """Bring label and decision of some images up to date with the log."""
    folded = fold(decisions_log, manifest)
    given = dict(manifest.filter(pl.col("path").is_in(paths)).select("path", "label").iter_rows())
    view = dataset.match(fo.ViewField("path").is_in(paths))
    found, idents = view.values(["path", "id"])
    labels = {i: label_in_force(folded, p, given.get(p)) for p, i in zip(found, idents, strict=True)}
    dataset.set_values(
        "label", {i: fo.Classification(label=label) if label else None for i, label in labels.items()}, key_field="id"
    )
    dataset.set_values(
        "decision", {i: decision_text(folded, p) for p, i in zip(found, idents, strict=True)}, key_field="id"
    )


def _claim_port(address: str, port: int) -> None:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except (OSError, OverflowError) as error:
            msg = (
                f"port {port} on {address} cannot be used: {getattr(error, 'strerror', None) or error}. "
                f"Is a review open already? Choose another one: `--port {port + 1 if port < 65535 else 5151}`."
            )
            raise EnvironmentMissing(msg) from error


@contextlib.contextmanager
def serve(dataset: Any, *, port: int = 5151) -> Iterator[Any]:
    """Serve the App on a loopback port for the time of a `with` block; yields FiftyOne's session.

    It opens on what is to be reviewed, or on the whole data set where there is no queue. In a container, where
    loopback cannot be reached from outside, FIFTYONE_DEFAULT_APP_ADDRESS=0.0.0.0 opens it to the network.

    Raises:
        EnvironmentMissing: the port is in use.
    """
    address = os.environ.get("FIFTYONE_DEFAULT_APP_ADDRESS") or "127.0.0.1"
    _claim_port(address, port)
    import fiftyone as fo
    import fiftyone.core.service as service

    view = dataset.load_saved_view(TO_REVIEW) if dataset.has_saved_view(TO_REVIEW) else None
    try:
        # `remote` keeps it from opening a browser by itself.
        config = fo.app_config.copy()
        config.grid_zoom = GRID_ZOOM
        bar = fo.Space(children=[fo.Panel(type="curate_bar", component_id="bar", pinned=True)], active_child="bar")
        grid = fo.Space(children=[fo.Panel(type="Samples", component_id="grid", pinned=True)], active_child="grid")
        spaces = fo.Space(children=[bar, grid], orientation="vertical", sizes=[0.12, 0.88])
        session = fo.launch_app(
            dataset, spaces=spaces, view=view if view else None, port=port, address=address, remote=True, config=config
        )
    except service.ServiceException as error:
        msg = f"the App did not start on port {port}: {error}. Try another one with `--port`."
        raise EnvironmentMissing(msg) from error
    try:
        yield session
    finally:
        fo.close_app()


def launch(
    workspace: Workspace, *, manifest: pl.DataFrame, findings: pl.DataFrame | None, predictions: pl.DataFrame | None,
    queue: pl.DataFrame | None, decisions_log: DecisionLog, port: int = 5151, open_browser: bool = False,
    on_ready: Callable[[str], object] | None = None,
) -> None:  # fmt: skip
    """Push the data set (see `push`) and serve the App until Ctrl-C.

    The tables are those of `push`. `on_ready` is called with the address when the App can be opened; `open_browser`
    opens this machine's own browser on it.

    Raises:
        EnvironmentMissing: no MongoDB, or the port is in use.
    """
    _claim_port("127.0.0.1", port)
    dataset = push(
        workspace, manifest=manifest, findings=findings, predictions=predictions, queue=queue,
        decisions_log=decisions_log,
    )  # fmt: skip
    with serve(dataset, port=port):
        address = f"http://127.0.0.1:{port}"
        if on_ready:
            on_ready(address)
        if open_browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
