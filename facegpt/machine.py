"""The machine and its installation: versions for the record, and the device to compute on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("facegpt", "torch", "transformers", "peft", "deepspeed", "numpy")


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python's version and those of `packages`; "not installed" where one is missing."""
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def default_device(local_rank: int = 0) -> torch.device:
    """The GPU of this process, by its number among those of the machine; the CPU where there is none."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
