"""Checks: pure functions from tables to findings. They see no pixels and draw no thresholds but their options.

`score` is in [0, 1], lower is worse, the direction of cleanlab. `reason` is one sentence that a person can act on.
"""

from __future__ import annotations

from curate.checks.base import Check, Tables, run_checks

__all__ = ["Check", "Tables", "run_checks"]
