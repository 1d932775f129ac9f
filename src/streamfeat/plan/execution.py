"""The fixed geometry of a run: what is decided by position in the data, never by memory.

This module covers: the length of a tile, and the longest history a feature may need.
This module does *not* cover: how many tiles are in flight (memory.controller).
"""

from __future__ import annotations

TILE_ROWS = 8_192
"""Rows of a tile: sums are formed per tile and added in tile order, so they do not depend on
chunks. 8,192 rows keep a column in the L2 cache and a product long enough for full GEMM speed."""

MOST_LOOKBACK_ROWS = TILE_ROWS
"""No feature may need more history than one tile: a chunk's halo comes from the chunk before."""
