"""NumPy's BLAS on one thread.

Golden's products of a few rows are bound by memory, which one core can keep busy; threads only wait for each other, and
on a machine with other work they wait ten times as long as they compute.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np


@cache
def use_one_thread() -> bool:
    """For the whole process; False where NumPy came with another BLAS, whose threads stay as they are."""
    for library in Path(np.__file__).parents[1].glob("numpy.libs/libscipy_openblas*"):
        loaded = ctypes.CDLL(str(library))  # the one that NumPy has loaded already
        for name in ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads"):
            if hasattr(loaded, name):
                getattr(loaded, name)(1)
                return True
    return False
