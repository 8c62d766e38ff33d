"""Where a test runs a rasterizer backend."""

import pytest
import torch


def need(backend: str) -> str:
    """The backend, or the test is skipped because its package is missing."""
    if backend != "torch":
        pytest.importorskip(backend, reason=f"the {backend} package is not installed")
    return backend


def device_of(backend: str) -> torch.device:
    """triton runs on the GPU where there is one, else on the CPU through its interpreter (conftest.py)."""
    return torch.device("cuda" if backend == "triton" and torch.cuda.is_available() else "cpu")
