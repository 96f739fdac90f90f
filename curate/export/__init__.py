"""Exports of the clean data set: the same view and format give the same bytes, wherever and whenever they are made."""
