"""The choice between the torch code, which runs anywhere, and what compilers make of it for one device."""

from __future__ import annotations

from functools import cache
from importlib import import_module

# By name: the module `backends.torch` takes the name "torch" in this package as soon as it is loaded.
from torch import device as Device

from facegpt.errors import RenderingError
from facegpt.render.backends.interface import Backend, TextureSource

__all__ = ["BACKENDS", "Backend", "TextureSource", "available", "choose"]

BACKENDS = ("auto", "torch", "numba", "triton", "pytorch3d")


def choose(backend: str, device: Device) -> Backend:
    """The backend that "auto" or a name stands for on a device; rendering asks once per call.

    "torch" is the reference and runs anywhere, "numba" on the CPU, "triton" on a GPU (on the CPU through its
    interpreter, for tests); "pytorch3d" rasterizes with that package and does the rest like "torch".
    "auto" is numba on the CPU and triton on a GPU where they can be imported, else torch.
    Raises RenderingError when the backend does not exist or cannot work on the device, ImportError when its
    package is asked for and cannot be imported.
    """
    if backend not in BACKENDS:
        raise RenderingError(f"unknown rasterizer backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if backend == "auto":
        fastest = {"cpu": "numba", "cuda": "triton"}.get(device.type, "torch")
        return _load(fastest if _works(fastest) else "torch")
    chosen = _load(backend)
    if reason := chosen.cannot_use(device):
        raise RenderingError(reason)
    return chosen


def available(device: Device) -> list[str]:
    """The backends that work on a device here, the reference first: what tests go through."""
    found = []
    for backend in BACKENDS[1:]:
        try:
            found.append(choose(backend, device).name)
        except (ImportError, RuntimeError, ValueError):
            continue
    return found


def _load(name: str) -> Backend:
    """Import a backend when it is wanted: its package is optional, and slow to import."""
    backend: Backend = import_module(f"facegpt.render.backends.{name}").BACKEND
    return backend


@cache
def _works(name: str) -> bool:
    """Whether a backend can be imported; numba refuses numpy versions it does not know, or cannot cache."""
    try:
        _load(name)
    except (ImportError, RuntimeError):
        return False
    return True
