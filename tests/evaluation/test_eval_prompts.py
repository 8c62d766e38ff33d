"""What evaluation asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from facegpt.data import templates
from facegpt.evaluation import prompts
from facegpt.files import write_json
from facegpt.sample import FaceRecord

WORDINGS = [
    (prompts.HELD_OUT_IMAGE_PROMPTS, templates.IMAGE_PROMPTS),
    (prompts.HELD_OUT_TEXT_PROMPTS, templates.TEXT_PROMPTS),
]


def record(number: int = 0, **fields: object) -> FaceRecord:
    return FaceRecord(f"face-{number}", Image.new("RGB", (8, 8)), torch.zeros(68, 2), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("held_out", "training"), WORDINGS)
def test_held_out_wordings_are_in_no_template_of_training(held_out: list[str], training: list[str]) -> None:
    plain = {text.replace("{}", "").strip().lower().rstrip(".?!") for text in training}
    assert len(set(held_out)) == len(held_out) >= 5
    for text in held_out:
        assert text.replace("{}", "").strip().lower().rstrip(".?!") not in plain
        assert text.count("{}") == (1 if "{}" in training[0] else 0)


def test_a_text_request_shows_the_whole_description_and_no_image() -> None:
    face = record(description={"pose": "It looks up.", "mood": "Glad.", "shape": " A long face. "})
    assert prompts.full_text(face.description) == "A long face. It looks up. Glad."
    for held_out in (False, True):
        sample = prompts.face_requests([face], held_out, seed=0, text=True)[0]
        assert (
            "A long face. It looks up. Glad." in sample.messages[0].text
            and "{}" not in sample.messages[0].text
        )
        assert sample.images == [] and len(sample.messages) == 1


def test_requests_vary_in_wording_and_repeat_by_seed() -> None:
    faces = [record(n) for n in range(30)]
    texts = [s.messages[0].text for s in prompts.face_requests(faces, False, seed=1)]
    assert len(set(texts)) > 5 and all(text.startswith("<image>\n") for text in texts)
    assert texts == [s.messages[0].text for s in prompts.face_requests(faces, False, seed=1)]
    assert texts != [s.messages[0].text for s in prompts.face_requests(faces, False, seed=2)]


def test_questions_about_images_never_ask_for_a_face() -> None:
    faces = [record(0, conversation=[("Is it dark?", "No.")]), record(1)]
    asked = prompts.image_questions(faces, 20, seed=0)
    assert len(asked) == 20 and all(len(sample.images) == 1 for sample in asked)
    texts = {sample.messages[0].text.removeprefix("<image>\n") for sample in asked}
    assert "Is it dark?" in texts and texts - {"Is it dark?"} <= set(templates.FACE_QUESTIONS)


def test_of_an_instruction_only_the_first_question_is_asked(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A square."},
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "No reason."},
    ]
    rows = [{"id": "a", "image": "a.png", "conversations": turns}]
    rows += [
        {"id": "b", "conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Yes."}]}
    ]
    write_json(tmp_path / "chat.json", rows)
    samples = prompts.instruct_questions(str(tmp_path / "chat.json"), None, 10, seed=0)
    shown = {sample.messages[-1].text: len(sample.images) for sample in samples}
    assert shown == {"<image>\nWhat is it?": 1, "Hi.": 0}
    assert all(len(sample.messages) == 1 for sample in samples)


def test_the_longest_text_in_sentences_stands_for_a_face_that_has_texts() -> None:
    face = record(description={"pose": "It looks up."})
    assert prompts.description_of(face) == "It looks up."
    face.texts = [
        "big grin, brows knitted, looks up, dark skin",
        "She grins.",
        "She grins. Her brows are knit. ",
    ]
    assert prompts.description_of(face) == "She grins. Her brows are knit."
    face.texts = ["big grin", "big grin, looking up"]
    assert prompts.description_of(face) == "big grin, looking up"
