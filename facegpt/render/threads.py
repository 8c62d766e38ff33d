"""Compiled loops over the faces of a batch on plain threads.

numba's own threads would not know how many threads torch was given, and OpenMP kills a process that forks
after using them (data loader workers).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def for_each_face(work: Callable[[int], object], batch: int) -> None:
    """Call work(0) ... work(batch - 1), on as many threads as torch may use; work must release the GIL."""
    threads = min(torch.get_num_threads(), batch)
    if threads < 2:
        for face in range(batch):
            work(face)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(batch)))
