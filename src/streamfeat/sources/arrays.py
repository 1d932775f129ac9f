"""Arrow arrays as NumPy arrays and back, without pandas.

pyarrow's own conversions import pandas where it is installed, which costs a second and 50 MB.

This module covers: fixed-width numbers and booleans, one way and the other.
This module does *not* cover: text, and what a value means (chunks).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_numpy(values: pa.Array, *, null: Any = None) -> NDArray[Any]:
    """Numbers or booleans as NumPy sees them; without nulls, numbers are not copied.

    ``null`` is what a null becomes.

    >>> to_numpy(pa.array([True, None]), null=False), to_numpy(pa.array([1.5]))
    (array([ True, False]), array([1.5]))
    """
    if len(values) == 0:
        return np.empty(0, dtype=bool if pa.types.is_boolean(values.type) else None)
    if values.null_count == 0:
        return _plain(values)
    bare = pa.Array.from_buffers(
        values.type, len(values), [None, values.buffers()[1]], offset=values.offset
    )
    out = _plain(bare).copy()
    out[~_plain(values.is_valid())] = null
    return out


def _plain(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_boolean(values.type):
        return np.from_dlpack(values.cast(pa.uint8())).astype(bool)
    return np.from_dlpack(values)


def from_floats(values: NDArray[np.float64]) -> pa.Array:
    """Floats as Arrow sees them; NaN becomes null.

    >>> from_floats(np.array([1.0, np.nan])).to_pylist()
    [1.0, None]
    """
    values = np.ascontiguousarray(values)
    known = ~np.isnan(values)
    n_null = len(values) - int(np.count_nonzero(known))
    bitmap = pa.py_buffer(np.packbits(known, bitorder="little")) if n_null else None
    return pa.Array.from_buffers(
        pa.float64(), len(values), [bitmap, pa.py_buffer(values)], null_count=n_null
    )


def from_integers(values: NDArray[np.int64]) -> pa.Array:
    """Whole numbers as Arrow sees them.

    >>> from_integers(np.arange(2)).to_pylist()
    [0, 1]
    """
    values = np.ascontiguousarray(values, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])
