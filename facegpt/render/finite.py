"""Vertices must be finite before they are drawn; how a GPU is asked without waiting for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

# Answers under way from a GPU, oldest first: which faces are finite, and whether that has arrived.
_under_way: deque[tuple[Tensor, Callable[[], bool]]] = deque()


def check_finite(vertices: Tensor, wait: bool = True) -> None:
    """Raise ValueError naming the faces of (B,V,3) that have a vertex which is not finite.

    wait: False on a GPU sends the question along with the work and returns. The error then comes from the
    first later call that finds the answer arrived; meanwhile a triangle with such a vertex draws nothing.
    While a CUDA graph is being recorded nothing is asked: its replay could not raise.
    """
    finite = (vertices.detach() * 0).flatten(1).sum(dim=1) == 0  # 0 times infinity is not a number
    if wait or not vertices.is_cuda:
        _raise_unless(finite, "")
        return
    if torch.cuda.is_current_stream_capturing():
        return
    check_answers()
    _under_way.append(_send(finite))


def check_answers() -> None:
    """Raise ValueError if an earlier `check_finite(wait=False)` has been answered with a no."""
    while _under_way and _under_way[0][1]():
        _raise_unless(_under_way.popleft()[0], "in an earlier call ")


def _send(finite: Tensor) -> tuple[Tensor, Callable[[], bool]]:
    answer = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True)
    answer.copy_(finite, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(finite.device))
    return answer, arrived.query


def _raise_unless(finite: Tensor, when: str) -> None:
    if not bool(finite.all()):
        faces = ", ".join(map(str, (~finite).nonzero().flatten().tolist()))
        raise ValueError(
            f"{when}face {faces} of the batch of {len(finite)} has vertices that are not finite; look for "
            "NaN or huge face parameters (camera scale, expression) in these rows"
        )
