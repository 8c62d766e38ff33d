"""How loops over arrays are compiled for the CPU (with numba, an optional dependency).

The compiled code is kept on disk, works without Python's lock, and divides by zero as numpy does: Python's
error would be looked for at every division, which keeps loops off the vector registers. numba infers types.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

loop = njit(cache=True, nogil=True, error_model="numpy")
# Sums in any order: for loops that should run on vector registers. Not "nnan" or "ninf": a diverged model
# brings what is not a number, and a compiler told otherwise may make anything of it, also an index.
vector_loop = njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}
)


def as_array(tensor: Tensor) -> np.ndarray:
    """A contiguous numpy view: numba would compile a loop again for every other memory layout.

    int32, in which the loops keep indices, becomes unsigned: of a signed index they would ask each time
    whether it counts from the end.
    """
    array: np.ndarray = tensor.detach().contiguous().numpy()
    return array.view(np.uint32) if array.dtype == np.int32 else array
