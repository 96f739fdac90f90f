"""Obtaining images: search engines through icrawler, polite fetching, and importers.

Importing this package loads none of its parts. `curate.acquire.scrape` scrapes, `curate.acquire.importers` links images
that are there already; icrawler itself is imported only when a crawl starts (`crawl`, `download`).
"""
