"""Schemas of the tables, checked wherever a table crosses a boundary."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from curate.errors import TableError


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """Columns with their types, those that may be null, and those that together are unique."""

    name: str
    columns: dict[str, pl.DataType | type[pl.DataType]]
    nullable: frozenset[str] = frozenset()
    key: tuple[str, ...] = ("path",)
    free: frozenset[str] = frozenset()
    """Columns whose exact type is not fixed (lists of any width)."""

    def empty(self) -> pl.DataFrame:
        """A table of this schema without rows."""
        return pl.DataFrame(schema=self.columns)


STATUSES = ("ok", "unreadable", "missing")
HOLDOUT = "holdout"
"""The value of `split` whose labels are trusted: never judged, never trained on."""

# `obtained` is the place of the image's first line in sources.jsonl; `mtime_ns` tells whether the file changed since.
MANIFEST = TableSchema(
    name="manifest",
    columns={
        "path": pl.String, "sha256": pl.String, "bytes": pl.Int64, "format": pl.String,
        "width": pl.Int32, "height": pl.Int32, "mode": pl.String, "label": pl.String, "split": pl.String,
        "origin": pl.String, "source": pl.String, "status": pl.String, "error": pl.String,
        "obtained": pl.Int64, "mtime_ns": pl.Int64,
    },
    nullable=frozenset({"format", "width", "height", "mode", "label", "split", "source", "error"}),
)  # fmt: skip

FEATURES = TableSchema(
    name="features",
    columns={
        "path": pl.String, "sha256": pl.String, "phash": pl.UInt64, "dhash": pl.UInt64,
        "brightness": pl.Float32, "contrast": pl.Float32, "entropy": pl.Float32, "sharpness": pl.Float32,
        "width": pl.Int32, "height": pl.Int32, "aspect": pl.Float32, "colourfulness": pl.Float32, "border": pl.Float32,
    },
)  # fmt: skip

GROUPS = TableSchema(
    name="groups",
    columns={
        "path": pl.String, "group": pl.Int64, "kind": pl.String, "representative": pl.String,
        "distance": pl.Int16, "similarity": pl.Float32,
    },
)  # fmt: skip

PAIRS = TableSchema(
    name="pairs",
    columns={
        "first": pl.String, "second": pl.String, "distance": pl.Int16, "similarity": pl.Float32,
        "aligned": pl.Boolean, "equal": pl.Boolean,
    },
    key=("first", "second"),
)  # fmt: skip

EMBEDDINGS = TableSchema(
    name="embeddings",
    columns={"path": pl.String, "sha256": pl.String, "vector": pl.Array(pl.Float32, 0), "backbone": pl.String},
    free=frozenset({"vector"}),
)

PREDICTIONS = TableSchema(
    name="predictions",
    columns={
        "path": pl.String, "fold": pl.Int32, "group": pl.Int64, "probs": pl.List(pl.Float32),
        "predicted": pl.String, "confidence": pl.Float32, "run": pl.String,
    },
    free=frozenset({"probs"}),
)  # fmt: skip

FINDINGS = TableSchema(
    name="findings",
    columns={
        "path": pl.String, "check": pl.String, "score": pl.Float64, "p_wrong": pl.Float64,
        "group": pl.Int64, "suggestion": pl.String, "reason": pl.String,
    },
    nullable=frozenset({"p_wrong", "group", "suggestion"}),
    key=("path", "check", "group"),
)  # fmt: skip

QUEUE = TableSchema(
    name="queue",
    columns={
        "rank": pl.Int64, "path": pl.String, "checks": pl.List(pl.String), "reason": pl.String, "p_wrong": pl.Float64,
        "suggestion": pl.String, "probe": pl.Boolean, "worth": pl.Float64,
    },
    nullable=frozenset({"p_wrong", "suggestion"}),
)  # fmt: skip

TABLES = {t.name: t for t in (MANIFEST, FEATURES, PAIRS, GROUPS, EMBEDDINGS, PREDICTIONS, FINDINGS, QUEUE)}


def validate(table: pl.DataFrame, schema: TableSchema) -> pl.DataFrame:
    """Check `table` against `schema` and return it with the schema's column order.

    Raises:
        TableError: a column is missing, unknown, of another type or null where it must not be,
            or two rows share a key.

    Example:
        >>> validate(FINDINGS.empty(), FINDINGS).height
        0
    """
    missing = [c for c in schema.columns if c not in table.columns]
    unknown = [c for c in table.columns if c not in schema.columns]
    if missing or unknown:
        msg = f"table {schema.name}: missing columns {missing}, unknown columns {unknown}"
        raise TableError(msg)
    table = table.select(list(schema.columns))
    for column, dtype in schema.columns.items():
        if column not in schema.free and table.schema[column] != dtype:
            msg = f"table {schema.name}: column {column} is {table.schema[column]}, not {dtype}"
            raise TableError(msg)
        if column not in schema.nullable and (nulls := table[column].null_count()):
            msg = f"table {schema.name}: column {column} has {nulls} missing values"
            raise TableError(msg)
    if table.height and (twice := table.height - table.select(schema.key).n_unique()):
        msg = f"table {schema.name}: {twice} rows repeat the key {schema.key}"
        raise TableError(msg)
    return table
