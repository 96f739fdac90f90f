"""The data-quality report: one self-contained page and report.json, from tables alone."""
