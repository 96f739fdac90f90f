"""Quality: pictures that are dark, blurred, tiny, empty or cannot be read, each with its figure and the limit."""

from __future__ import annotations

import polars as pl

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `quality:<kind>`; `score` is how far within the limit the figure lies, as a share of the limit."""
    rows = []
    for path, error in tables.manifest.filter(pl.col("status") != "ok").select("path", "error").iter_rows():
        rows.append(finding(path, "quality:unreadable", 0.0, f"cannot be read: {error}"))
    o = options
    judged = tables.judged().select("path").join(tables.features, on="path")
    # A set of drawings or of scans is grey and has margins: only what stands out in its set is a finding.
    # Where hardly anything can be seen, no colour can.
    seen = pl.col("brightness").is_between(o.dark, o.bright) & (pl.col("contrast") >= 2 * o.low_contrast)
    judged = judged.with_columns(
        grey=(pl.col("colourfulness") < o.greyscale) & seen, framed=(pl.col("border") > o.mostly_border) & seen
    )
    most = o.unusual * judged.height
    tell_grey, tell_framed = (judged[column].sum() <= most for column in ("grey", "framed"))
    for f in judged.sort("path").iter_rows(named=True):
        shorter = min(f["width"], f["height"])
        longer = max(f["width"], f["height"]) / shorter
        for kind, figure, limit, bad, words in (
            ("dark", f["brightness"], o.dark, f["brightness"] < o.dark, "mean brightness"),
            (
                "bright",
                1 - f["brightness"],
                1 - o.bright,
                f["brightness"] > o.bright,
                "distance of mean brightness from white",
            ),
            ("low_contrast", f["contrast"], o.low_contrast, f["contrast"] < o.low_contrast, "contrast"),
            ("low_information", f["entropy"], o.low_information, f["entropy"] < o.low_information, "bits of entropy"),
            ("blurry", f["sharpness"], o.blurry, f["sharpness"] < o.blurry, "sharpness"),
            ("tiny", shorter, o.tiny, shorter < o.tiny, "pixels on the shorter side"),
            (
                "greyscale",
                f["colourfulness"],
                o.greyscale,
                f["grey"] and tell_grey,
                "among pictures in colour, spread of the channels",
            ),
            (
                "mostly_border",
                1 - f["border"],
                1 - o.mostly_border,
                f["framed"] and tell_framed,
                "share of the area inside uniform margins",
            ),
            ("odd_aspect", 1 / longer, 1 / o.odd_aspect, longer > o.odd_aspect, "shorter over longer side"),
        ):
            if bad:
                reason = f"{kind.replace('_', ' ')}: {words} {figure:.3g}, the limit is {limit:.3g}"
                rows.append(finding(f["path"], f"quality:{kind}", figure / limit if limit else 0.0, reason))
    return table(rows)
