"""The faces of a batch spread over plain threads.

numba's own threads would not know how many threads torch was given, and OpenMP, once used, kills the
processes that are forked afterwards (a data loader's workers).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

from facegpt.head.compiled import as_array


def for_each_face(work: Callable[[int], object], batch: int) -> None:
    """Call work(0) ... work(batch - 1), on as many threads as torch may use; work must release the GIL.

    An error in one of them is raised when all threads have stopped.
    """
    faces = iter(range(batch))
    helpers = min(torch.get_num_threads(), batch) - 1
    if helpers < 1:
        _work_off(work, faces)
        return
    others = [_pool().submit(_work_off, work, faces) for _ in range(helpers)]
    try:
        _work_off(work, faces)
    finally:
        errors = [other.exception() for other in others]
    for error in filter(None, errors):
        raise error


def run_faces(compiled: Any, per_face: list[Tensor], shared: list[Any]) -> None:
    """Call a compiled loop for each face: with its part of the first tensors, and with the others whole."""
    faces = [as_array(tensor) for tensor in per_face]
    others = [as_array(value) if isinstance(value, Tensor) else value for value in shared]
    for_each_face(lambda face: compiled(*(array[face] for array in faces), *others), len(faces[0]))


def _work_off(work: Callable[[int], object], faces: Iterator[int]) -> None:
    for face in faces:
        work(face)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="facegpt")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent
