"""The choice between the torch code, which runs anywhere, and what compilers make of it for one device."""

from __future__ import annotations

import importlib
from functools import cache

import torch

BACKENDS = ("auto", "torch", "numba", "triton", "pytorch3d")


def resolve(backend: str, device: torch.device) -> str:
    """The backend that "auto" or a name stands for on a device.

    "torch" is the reference and runs anywhere, "numba" on the CPU, "triton" on a GPU (on the CPU through its
    interpreter, for tests); "pytorch3d" rasterizes with that package and does the rest like "torch".
    "auto" is numba on the CPU and triton on a GPU where they can be imported, else torch.
    Raises ValueError when the backend does not exist or cannot work on the device, ImportError when its
    package is asked for and cannot be imported.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown rasterizer backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if backend == "auto":
        fast = "numba" if device.type == "cpu" else "triton" if device.type == "cuda" else ""
        return fast if fast and _works(fast) else "torch"
    if backend == "numba" and device.type != "cpu":
        raise ValueError(f"the numba rasterizer runs on the CPU, the vertices are on {device}")
    if backend != "torch":
        importlib.import_module(f"facegpt.render.rasterize_{backend}")  # a missing package should say so here
    if backend == "triton" and device.type != "cuda":
        from facegpt.render.rasterize_triton import is_interpreted

        if not is_interpreted():
            raise ValueError(
                f"the triton rasterizer runs on a GPU, the vertices are on {device}; to try it there through "
                "triton's interpreter set TRITON_INTERPRET=1 before Python starts"
            )
    return backend


def available(device: torch.device) -> list[str]:
    """The backends that work on a device here, the reference first: what tests go through."""
    found = []
    for backend in BACKENDS[1:]:
        try:
            found.append(resolve(backend, device))
        except (ImportError, RuntimeError, ValueError):
            continue
    return found


_MODULES = {
    "numba": ("fused_numba", "interpolate_numba", "rasterize_numba", "shade_numba"),
    "triton": ("interpolate_triton", "normals_triton", "rasterize_triton", "shade_triton"),
}


@cache
def _works(backend: str) -> bool:
    """Whether a backend's modules import; numba refuses numpy versions it does not know, or cannot cache."""
    try:
        for module in _MODULES[backend]:
            importlib.import_module(f"facegpt.render.{module}")
    except (ImportError, RuntimeError):
        return False
    return True
