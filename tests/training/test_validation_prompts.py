"""What validation asks of a record."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from facegpt.sample import FaceRecord
from facegpt.training.validation import CHAT, IMAGE, TEXT, _prompts

TEXT_OF_IT = "She has a crooked grin."


@pytest.mark.parametrize(
    "told", [{"texts": [TEXT_OF_IT]}, {"description": {"expression": TEXT_OF_IT}}], ids=["texts", "aspects"]
)
def test_a_described_face_is_asked_for_by_its_description(told: dict[str, object]) -> None:
    record = FaceRecord("a", Image.new("RGB", (8, 8)), torch.zeros(68, 2), **told)  # type: ignore[arg-type]
    prompts = {prompt.kind: prompt.sample for prompt in _prompts([record])}
    assert prompts.keys() == {IMAGE, CHAT, TEXT}
    assert "crooked grin" in prompts[TEXT].messages[0].text and not prompts[TEXT].images
    assert prompts[IMAGE].images == [record.image]


def test_a_face_that_nobody_described_is_asked_for_by_its_photograph_alone() -> None:
    record = FaceRecord("a", Image.new("RGB", (8, 8)), torch.zeros(68, 2))
    assert {prompt.kind for prompt in _prompts([record])} == {IMAGE, CHAT}
