"""The pretrained model describes every face once; its rows fit what the sources read."""

from __future__ import annotations

import datasets
import pytest
from data_files import face_row, write_shards
from recipes import load_recipe

from facegpt.data.collate import collate_prompts
from facegpt.data.records import read_records
from facegpt.data.sources import TextToFace
from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS
from facegpt.data.validate import validate_records
from facegpt.errors import ConfigError
from facegpt.sample import Message, Sample
from facegpt.standins.tiny_llava import TINY_RANDOM, build_tiny_llava, save_tiny_llava

describe = load_recipe("data_gen/describe.py")


@pytest.fixture(autouse=True, scope="module")
def separate_cache(tmp_path_factory):
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

    def ask(question, features, model, processor, settings):
        asked.append(question)
        return [f"Answer to {question}"] * len(features)

    monkeypatch.setattr(describe, "ask", ask)
    words = ["--data", str(data), "--backbone", str(backbone), "batch=1", "questions=1"]
    describe.main([*words, "limit=2"])
    assert len(asked) == 2 * 6
    with (data / "descriptions.jsonl").open("a") as file:
        file.write('{"id": "face-2", "desc')  # died while writing
    describe.main(words)
    assert len(asked) == 3 * 6
    records = read_records(data)
    assert records[2].description["pose"] == f"Answer to {ASPECT_QUESTIONS['pose']}"
    describe.main(words)
    assert len(asked) == 3 * 6
    assert len((data / "descriptions.jsonl").read_text().splitlines()) == 3


def test_answers_belong_to_their_face_and_question(data, backbone, monkeypatch):
    """Faces described together get the answers that the ordinary generation gives each of them alone."""
    model, processor = describe.load_backbone(backbone, "float32", "cpu")
    settings = describe.DescriptionSettings(data="", max_new_tokens=8, questions=2)
    monkeypatch.setattr(describe, "whole_sentences", str)
    records = list(read_records(data))
    for record, row in zip(records, describe.describe(records, model, processor, settings), strict=True):
        aspects = [(ASPECT_QUESTIONS[aspect], text) for aspect, text in row["description"].items()]
        for question, text in [*aspects, *row["conversation"]]:
            message = Message("user", f"<image>\n{question}")
            batch = collate_prompts([Sample(record.id, "", [message], [record.image])], processor)
            ids = model.generate(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                pixel_values=batch.pixel_values,
                max_new_tokens=8,
                do_sample=False,
            )
            alone = processor.tokenizer.decode(ids[0, batch.input_ids.shape[1] :], skip_special_tokens=True)
            assert text == alone


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


@pytest.mark.parametrize("word", ["batch=-1", "batch=0", "limit=0", "limit=-2", "max_new_tokens=0"])
def test_settings_that_would_describe_nothing_are_refused(data, word):
    with pytest.raises(ConfigError, match=f"{word.partition('=')[0]} must be at least 1"):
        describe.main([f"data={data}", word])


@pytest.mark.parametrize("value", ["-1", ".nan", ".inf"])
def test_an_impossible_temperature_is_refused(data, value):
    with pytest.raises(ConfigError, match="temperature"):
        describe.main([f"data={data}", f"temperature={value}"])


def test_a_second_run_on_the_same_folder_is_refused(data, backbone, monkeypatch):
    monkeypatch.setattr(describe, "ask", lambda question, features, *_: ["Yes."] * len(features))
    words = [f"data={data}", f"backbone={backbone}"]
    with (
        describe.only_writer(data / "descriptions.jsonl"),
        pytest.raises(ConfigError, match="another process"),
    ):
        describe.main(words)
    describe.main(words)
    assert len((data / "descriptions.jsonl").read_text().splitlines()) == 3
