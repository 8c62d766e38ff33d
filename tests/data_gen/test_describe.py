"""The untouched model describes every face once; its rows fit what the sources read."""

from __future__ import annotations

import datasets
import describe
import pytest
from data_files import face_row, write_shards
from PIL import Image

from facegpt.data.records import read_records
from facegpt.data.sources import TextToFace
from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS
from facegpt.data.validate import validate_records
from facegpt.errors import ConfigError
from facegpt.model.tiny import TINY_RANDOM, build_tiny_llava, save_tiny_llava


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llava(*build_tiny_llava(["What is the face like? It is long."] * 3, TINY_RANDOM), folder)
    return folder


@pytest.fixture()
def data(tmp_path):
    return write_shards(tmp_path / "faces", [face_row(number) for number in range(3)])


def test_every_face_gets_a_row_that_the_sources_can_read(data, backbone):
    describe.main([f"data={data}", f"--backbone={backbone}", "batch=2", "questions=2", "max_new_tokens=12"])
    records = validate_records(data)
    assert set(records.annotations) == set(records.ids)
    for record in records:
        assert set(record.description) <= set(ASPECT_QUESTIONS)
        assert {question for question, _ in record.conversation} <= set(FACE_QUESTIONS)
        assert len(record.conversation) <= 2
    assert len(TextToFace(records, 32)) == len([r for r in records if r.description])


def test_an_interrupted_run_goes_on_where_it_stopped(data, backbone, monkeypatch):
    asked = []

    def ask(images, questions, model, processor, settings):
        asked.append(sum(map(len, questions)))
        return [f"Answer to {question}" for own in questions for question in own]

    monkeypatch.setattr(describe, "ask", ask)
    words = ["--data", str(data), "--backbone", str(backbone), "batch=1", "questions=1"]
    describe.main([*words, "limit=2"])
    assert asked == [6, 6]
    with (data / "descriptions.jsonl").open("a") as file:
        file.write('{"id": "face-2", "desc')  # died while writing
    describe.main(words)
    assert asked == [6, 6, 6]
    records = read_records(data)
    assert records[2].description["pose"] == f"Answer to {ASPECT_QUESTIONS['pose']}"
    describe.main(words)
    assert asked == [6, 6, 6]
    assert len((data / "descriptions.jsonl").read_text().splitlines()) == 3


def test_answers_belong_to_their_face_and_question(backbone, monkeypatch):
    """Batched answers equal those to single prompts, so padding and order do no harm."""
    model, processor = describe.load_backbone(backbone, "float32", "cpu")
    settings = describe.DescriptionSettings(data="", max_new_tokens=8)
    monkeypatch.setattr(describe, "whole_sentences", str)
    images = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    asked = [["What is it?", "Is the face in this picture long or short?"], ["What is it?"]]
    together = describe.ask(images, asked, model, processor, settings)
    apart = [
        describe.ask([image], [[question]], model, processor, settings)[0]
        for image, own in zip(images, asked, strict=True)
        for question in own
    ]
    assert together == apart
    assert len(set(together)) > 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is long. The chin is", "It is long."),
        (" It is\n long. ", "It is long."),
        ("no end", "no end"),
        ("A <FACE> of <image> stone.", "A of stone."),
        ("", ""),
    ],
)
def test_cut_sentences_and_foreign_tokens_are_removed(text, expected):
    assert describe.whole_sentences(text) == expected


def test_data_must_be_given_and_questions_exist():
    with pytest.raises(ConfigError, match="no value for data"):
        describe.main([])
    with pytest.raises(ConfigError, match="questions must be between"):
        describe.main(["data=x", "questions=7"])
