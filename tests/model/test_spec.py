"""Settings of LoRA and face head are refused with a sentence where they are made."""

from __future__ import annotations

from typing import Any

import pytest

from facegpt.errors import ConfigError
from facegpt.model.spec import FaceHeadSettings, LoraSettings


@pytest.mark.parametrize(
    "values", [{"rank": 0}, {"rank": 1025}, {"rank": True}, {"alpha": 0}, {"dropout": 1.0}, {"targets": ()}]
)
def test_lora_that_cannot_be_built_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"lora.{next(iter(values))} is "):
        LoraSettings(**values)


@pytest.mark.parametrize("widths", [(0,), (2.5,), (32769,), (32768,) * 3 * 4])
def test_widths_that_cannot_be_built_are_refused(widths: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match=r"face_head\.widths"):
        FaceHeadSettings(widths=widths)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5, "x", 10**400])
def test_scales_that_are_no_numbers_are_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"face_head\.scales\.pose"):
        FaceHeadSettings(scales={"pose": (value,)})


def test_what_the_recipes_use_is_taken() -> None:
    LoraSettings(rank=128, alpha=256, dropout=0.05)
    FaceHeadSettings(widths=(5120, 5120), scales={"pose": (0.3,), "camera": (0.1, 0.02, 0.02)})
