"""The choice between the torch code, which runs anywhere, and the loops compiled by numba for the CPU."""

from __future__ import annotations

from functools import cache

import torch

BACKENDS = ("auto", "torch", "numba")


def resolve(backend: str, device: torch.device) -> str:
    """ "torch" or "numba": "auto" is numba for tensors on the CPU where numba works.

    Raises ValueError when the backend does not exist or cannot work on the device, ImportError when numba is
    asked for and cannot be imported.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown rasterizer backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    on_cpu = device.type == "cpu"
    if backend == "auto":
        return "numba" if on_cpu and _numba_works() else "torch"
    if backend == "numba":
        if not on_cpu:
            raise ValueError(f"the numba rasterizer runs on the CPU, the vertices are on {device}")
        import facegpt.render.rasterize_numba  # noqa: F401  # a missing numba should say so here
    return backend


@cache
def _numba_works() -> bool:
    """Whether numba can be imported (it refuses numpy versions it does not know) and can cache its code."""
    try:
        import facegpt.render.interpolate_numba
        import facegpt.render.rasterize_numba
        import facegpt.render.shade_numba  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True
