"""What is drawn must be finite and of a sane size; how a GPU is asked about that without waiting for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from facegpt.errors import RenderingError
from facegpt.head.parameters import FaceParameters

# Far beyond what shows anything, and small enough that float32 can multiply what follows from them.
LARGEST_PARAMETER = 1e9
LARGEST_COORDINATE = 1e16  # pixels

# Answers on their way from a GPU, oldest first: flags, what to raise for them, and whether they have arrived.
_pending: deque[tuple[Tensor, Callable[[Tensor, str], None], Callable[[], bool]]] = deque()


def check_faces(values: Tensor, what: str, largest: float = LARGEST_PARAMETER, wait: bool = True) -> None:
    """Raise RenderingError naming the faces of (B,...) with a value that is not finite or beyond `largest`.

    what: the name of the values in that sentence. wait: False on a GPU sends the question along with the work
    and returns. The error then comes from the first later call that finds the answer arrived; until then the
    kernels stay within their arrays, and a triangle with a vertex that is not finite draws nothing. While a
    CUDA graph is being recorded nothing is asked: its replay could not raise.
    """

    def raise_for(usable: Tensor, when: str) -> None:
        if not bool(usable.all()):
            raise RenderingError(
                f"{when}{_faces(usable)} has {what} that are not finite or beyond {largest:.0e}; look "
                "for NaN or huge face parameters (camera scale, expression) in these rows"
            )

    sizes = values.detach().abs().flatten(1)
    # The maximum of a row with NaN is NaN, and that is not below anything.
    usable = sizes.amax(dim=1) <= largest if sizes.shape[1] else sizes.new_ones(len(sizes), dtype=torch.bool)
    _raise_or_ask(usable, raise_for, wait)


def check_vertices(vertices: Tensor, wait: bool = True) -> None:
    """`check_faces` for projected vertices (B,V,3)."""
    check_faces(vertices, "vertices", LARGEST_COORDINATE, wait)


def check_parameters(parameters: FaceParameters, wait: bool = True) -> None:
    """Raise RenderingError naming faces and groups with a number not finite or beyond LARGEST_PARAMETER.

    wait: as in `check_faces`.
    """
    sizes = parameters.layout.sizes

    def raise_for_groups(usable: Tensor, when: str) -> None:
        if not bool(usable.all()):
            groups = zip(sizes, usable.split(list(sizes.values()), dim=1), strict=True)
            names = ", ".join(name for name, part in groups if not bool(part.all()))
            raise RenderingError(
                f"{when}{_faces(usable.all(dim=1))} has face parameters ({names}) that are not finite or "
                f"beyond {LARGEST_PARAMETER:.0e}; look for what made these rows diverge"
            )

    usable = parameters.to_vector().detach().float().abs() <= LARGEST_PARAMETER
    _raise_or_ask(usable, raise_for_groups, wait)


def poll() -> None:
    """Raise RenderingError if an earlier check with `wait=False` has been answered with a no."""
    while _pending and _pending[0][2]():
        flags, raise_for, _ = _pending.popleft()
        raise_for(flags, "in an earlier call ")


def _raise_or_ask(flags: Tensor, raise_for: Callable[[Tensor, str], None], wait: bool) -> None:
    if wait or not flags.is_cuda:
        raise_for(flags, "")
    elif not torch.cuda.is_current_stream_capturing():
        poll()
        answer, arrived = _send(flags)
        _pending.append((answer, raise_for, arrived))


def _send(flags: Tensor) -> tuple[Tensor, Callable[[], bool]]:
    answer = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
    answer.copy_(flags, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(flags.device))
    return answer, arrived.query


def _faces(good: Tensor) -> str:
    return f"face {', '.join(map(str, (~good).nonzero().flatten().tolist()))} of the batch of {len(good)}"
