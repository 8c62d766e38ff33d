"""Versions for the record, and the device to compute on."""

from __future__ import annotations

import platform

import pytest
import torch

from facegpt.machine import default_device, package_versions


def test_versions_name_python_and_what_is_not_installed() -> None:
    found = package_versions(["torch", "no-such-package"])
    assert found["python"] == platform.python_version() and found["no-such-package"] == "not installed"
    assert torch.__version__.startswith(found["torch"].split("+")[0])


def test_the_device_is_the_gpu_of_the_process_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device(1) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device(1) == torch.device("cuda", 1)
