"""Sources give the same sample for the same index and epoch, and other wording in another epoch."""

from __future__ import annotations

import json

import pytest
from data_files import face_image, face_row, write_annotations, write_shards

from facegpt.data.records import read_records
from facegpt.data.sources import ImageToFace, Instruct, TextToFace
from facegpt.data.validate import validate_sample
from facegpt.errors import ImageError, SampleError


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    path = write_shards(tmp_path_factory.mktemp("faces"), [face_row(number) for number in range(4)])
    write_annotations(path, [0, 1, 3])
    return read_records(path)


def texts(sample):
    return [message.text for message in sample.messages]


def test_every_sample_is_valid_and_repeatable(records):
    for source in (ImageToFace(records, 32), TextToFace(records, 32)):
        for epoch in range(20):
            for index in range(len(source)):
                sample = source.sample(index, epoch)
                validate_sample(sample)
                assert texts(sample) == texts(source.sample(index, epoch))
                assert (sample.id, sample.messages) == source.messages(index, epoch)
        wordings = {tuple(texts(source.sample(0, epoch))) for epoch in range(20)}
        assert len(wordings) > 12
        assert texts(type(source)(records, 32, seed=1).sample(0, 0)) != texts(source.sample(0, 0))


def test_an_image_sample_shows_the_photograph_and_compares_with_it(records):
    sample = ImageToFace(records, 32).sample(2, 0)  # a record without conversation
    assert sample.id == "face-2" and len(sample.messages) == 2
    assert sample.messages[0].text.startswith("<image>\n") and sample.messages[1].text.count("<FACE>") == 1
    assert sample.images[0].size == (64, 64) and sample.faces[0].image.shape == (3, 32, 32)


def test_conversation_comes_before_after_or_with_the_face_or_alone(records):
    source = ImageToFace(records, 32)
    pairs = dict(records[0].conversation)
    seen = set()
    for epoch in range(300):
        _, messages = source.messages(0, epoch)
        turns = [messages[i : i + 2] for i in range(0, len(messages), 2)]
        assert messages[0].text.startswith("<image>\n") and sum("<image>" in m.text for m in messages) == 1
        where = [i for i, turn in enumerate(turns) if "<FACE>" in turn[1].text]
        assert len(where) <= 1
        for question, answer in turns:
            plain = question.text.removeprefix("<image>\n")
            assert "<FACE>" in answer.text or pairs[plain] == answer.text
        if not where:
            seen.add("alone")
        elif any(question in turns[where[0]][0].text for question in pairs):
            seen.add("with")
        else:
            seen |= {"face only"} if len(turns) == 1 else set()
            seen |= {"before"} if where[0] > 0 else set()
            seen |= {"after"} if where[0] < len(turns) - 1 else set()
    assert seen == {"alone", "with", "face only", "before", "after"}


def test_a_text_sample_has_the_words_but_not_the_image(records):
    source = TextToFace(records, 32)
    assert len(source) == 3
    sample = source.sample(2, 0)
    assert sample.id == "face-3" and sample.images == [] and len(sample.faces) == 1
    assert "<image>" not in sample.messages[0].text
    spoken = [source.messages(2, epoch)[1][0].text for epoch in range(10)]
    assert any("A long face 3." in text for text in spoken) and any("It looks up." in text for text in spoken)


def test_text_to_face_needs_descriptions(tmp_path):
    with pytest.raises(SampleError, match="has no descriptions"):
        TextToFace(read_records(write_shards(tmp_path, [face_row(0)])), 32)


def test_every_epoch_draws_another_of_the_texts_and_sometimes_two_faces(tmp_path):
    path = write_shards(tmp_path, [face_row(number) for number in range(4)])
    texts_of = {n: [f"a glad man {n}", f"She is {n}.", f"to smile {n}", f"big grin {n}"] for n in range(4)}
    rows = [{"id": f"face-{n}", "texts": said} for n, said in texts_of.items()]
    (path / "descriptions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = TextToFace(read_records(path), 32)
    assert len(source) == 4 and source.records[1].texts == texts_of[1]
    assert all("look" not in texts(source.sample(1, epoch))[1].split("<FACE>")[0] for epoch in range(20))
    counts = []
    for epoch in range(80):
        sample = source.sample(1, epoch)
        validate_sample(sample)
        assert any(
            text.strip(".").removeprefix("to ").lower() in texts(sample)[0].lower() for text in texts_of[1]
        )
        counts.append((len(sample.messages), len(sample.faces)))
    assert set(counts) == {(2, 1), (2, 2), (4, 2)} and 0.1 < 1 - counts.count((2, 1)) / 80 < 0.35
    assert len({texts(source.sample(1, epoch))[0] for epoch in range(20)}) > 15


def test_the_answer_names_what_the_described_face_seems_to_feel_before_the_face(tmp_path):
    path = write_shards(tmp_path, [face_row(0)])
    row = {"id": "face-0", "texts": ["She has a big grin."], "looks": ["glad", "happy"]}
    (path / "descriptions.jsonl").write_text(json.dumps(row) + "\n")
    source = TextToFace(read_records(path), 32, several_rate=0.0)
    assert source.records[0].looks == ["glad", "happy"]
    answers = [texts(source.sample(0, epoch))[1] for epoch in range(40)]
    assert {answer.split("<FACE>")[0].split()[:2] == ["She", "looks"] for answer in answers} == {True}
    assert {word for answer in answers for word in ("glad", "happy") if word in answer} == {"glad", "happy"}


def turn(role, value):
    return {"from": role, "value": value}


def write_json(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_llava_lists_are_read_as_they_are(tmp_path):
    (tmp_path / "coco").mkdir()
    face_image().save(tmp_path / "coco" / "1.jpg")
    rows = [
        {
            "id": "a",
            "image": "coco/1.jpg",
            "conversations": [turn("human", "What is it?\n<image>"), turn("gpt", "A picture.\n")],
        },
        {
            "id": 7,
            "conversations": [
                turn("gpt", "Hello"),
                turn("human", "Hi"),
                turn("gpt", "Ho"),
                turn("human", "?"),
            ],
        },
        {"image": "coco/1.jpg", "conversations": [turn("human", " Look "), turn("gpt", "I do.")]},
    ]
    source = Instruct(write_json(tmp_path / "mix.json", rows))
    assert len(source) == 3
    first, second, third = (source.sample(index, 0) for index in range(3))
    assert texts(first) == ["<image>\nWhat is it?", "A picture."] and first.images[0].size == (64, 64)
    assert texts(second) == ["Hi", "Ho"] and second.images == [] and second.faces == []
    assert texts(third) == ["<image>\nLook", "I do."]
    assert first.id.startswith("a in") and third.id.startswith("row 2 of")
    for sample in (first, second, third):
        validate_sample(sample)


def test_instruct_errors_name_the_row(tmp_path):
    rows = [
        {"id": "no image", "image": "absent.jpg", "conversations": [turn("human", "Hi"), turn("gpt", "Ho")]},
        {"id": "no turns"},
        {"id": "a narrator", "conversations": [turn("narrator", "Once")]},
    ]
    source = Instruct(write_json(tmp_path / "mix.json", rows))
    with pytest.raises(ImageError, match=r"absent\.jpg"):
        source.sample(0, 0)
    for index, name in ((1, "no turns"), (2, "a narrator")):
        with pytest.raises(SampleError, match=name):
            source.sample(index, 0)
    for content in ("{}", "[]", "[1]", "not json"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(SampleError, match=r"bad\.json"):
            Instruct(tmp_path / "bad.json")
