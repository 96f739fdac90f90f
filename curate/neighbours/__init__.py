"""Near-duplicates: near pairs of hashes, their verification on pixels, and groups.

A perceptual hash proposes, pixels decide: brush glyphs on plain paper, pages of text and line drawings collide in 64
bits, so each candidate pair is compared as pictures before it counts.
"""

from curate.neighbours.candidates import Candidate, candidates
from curate.neighbours.graph import groups
from curate.neighbours.grouping import Keeper, group_table, pair_table, touching
from curate.neighbours.hamming import Pairs, near_pairs
from curate.neighbours.memory import Memory

__all__ = [
    "Candidate", "Keeper", "Memory", "Pairs", "candidates", "group_table", "groups", "near_pairs",
    "pair_table", "touching",
]  # fmt: skip
