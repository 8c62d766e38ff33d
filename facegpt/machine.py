"""The machine and its installation: versions for the record, and the device to compute on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from facegpt.errors import ConfigError

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


def choose_device(name: str) -> torch.device:
    """The device of that name, "auto": the GPU where there is one. ConfigError for one that is not here."""
    try:
        if name == "auto":
            return default_device()
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device={name} is none that can be used here ({reason})") from None
    return torch.device(name)
