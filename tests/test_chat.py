"""The chat session: memory, faces, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chat_formats import chat_processor
from PIL import Image
from small_facegpt import small_backbone, small_facegpt
from small_head import small_head
from talking_model import gray_image, talking_model

from facegpt.chat import (
    ChatSession,
    Request,
    answer,
    answer_batch,
    context_length,
    newest_checkpoint,
    question,
)
from facegpt.data.conversation import encode_prompt
from facegpt.errors import CheckpointError, ImageError, MissingPartError, SampleError
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import Reply, end_token_ids
from facegpt.sample import FACE_TOKEN, Message, Sample


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FaceGPT:
    return talking_model(small_head(), tmp_path_factory.mktemp("backbone") / "tiny")


def test_every_face_token_of_the_reply_has_its_parameters_and_probability(model: FaceGPT) -> None:
    turn = ChatSession(model, max_new_tokens=5).say("Show me the face.", gray_image())
    assert turn.text.count(FACE_TOKEN) == len(turn.faces) == len(turn.probabilities) > 0
    for face, probability in zip(turn.faces, turn.probabilities, strict=True):
        assert face.to_vector().shape == (1, small_head().layout.total)
        assert 0 < probability <= 1


def test_a_reply_is_the_one_that_the_whole_conversation_written_by_hand_gets(model: FaceGPT) -> None:
    session = ChatSession(model, max_new_tokens=4)
    first = session.say("Show me the face.", gray_image())
    second = session.say("And now?", Image.new("RGB", (20, 30), "red"))
    by_hand = Sample(
        "by hand",
        "test",
        [
            Message("user", "<image>\nShow me the face."),
            Message("assistant", first.text),
            Message("user", "<image>\nAnd now?"),
        ],
        [gray_image(), Image.new("RGB", (20, 30), "red")],
    )
    reply = answer(model, [by_hand], max_new_tokens=4)[0]
    assert reply.text == second.text
    assert reply.faces is not None
    faces = torch.cat([face.to_vector() for face in second.faces])
    assert torch.equal(reply.faces.to_vector(), faces)


def test_a_backbone_that_speaks_chatml_is_asked_and_stopped_in_chatml() -> None:
    """SmolLM2's kind: a default system prompt, an end token that pads too, an image in one string."""
    backbone, _ = small_backbone(8)
    processor = chat_processor("smollm2")
    backbone.config.image_token_id = processor.image_token_id
    model = small_facegpt(backbone=(backbone, processor))
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_token_ids(model) == sorted({end, backbone.generation_config.eos_token_id})
    session = ChatSession(model, max_new_tokens=30, temperature=1.0, seed=1)
    turns = [session.say("Show me the face.", gray_image()), session.say("And now?")]
    assert all("<|im_end|>" not in turn.text and "<|im_start|>" not in turn.text for turn in turns)
    assert all(turn.text.count(FACE_TOKEN) == len(turn.faces) for turn in turns)
    prompt = processor.tokenizer.decode(encode_prompt(session.messages[:3], processor))
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.endswith("<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n")


def test_the_batch_gives_what_single_requests_give(model: FaceGPT) -> None:
    requests = [
        question("Show me the face.", gray_image()),
        question("A longer question without any picture, if you please?"),
        question("Why?", Image.new("RGB", (9, 9), "blue")),
    ]
    together = answer(model, requests, max_new_tokens=4)
    for request, reply in zip(requests, together, strict=True):
        alone = answer(model, [request], max_new_tokens=4)[0]
        assert alone.text == reply.text
        if alone.faces is not None and reply.faces is not None:
            assert torch.allclose(alone.faces.to_vector(), reply.faces.to_vector(), atol=1e-4)


def test_many_requests_get_what_each_would_get_alone_in_batches_of_any_size(model: FaceGPT) -> None:
    requests = [
        Request("one", "Show me the face.", gray_image()),
        Request("two", "A longer question without any picture, if you please?"),
        Request("three", "Why?", lambda: Image.new("RGB", (9, 9), "blue")),
        Request("four", "Why?"),
    ]
    for size, batches in ((1, 4), (3, 2), (16, 1)):
        answered = list(answer_batch(model, requests, size, max_new_tokens=4))
        assert len(answered) == batches
        together = {request.id: turn for batch in answered for request, turn in batch}
        assert sorted(together) == ["four", "one", "three", "two"]
        for request in requests:
            image = request.image() if callable(request.image) else request.image
            alone = ChatSession(model, max_new_tokens=4).say(request.text, image)
            turn = together[request.id]
            assert turn.text == alone.text and turn.probabilities == pytest.approx(
                alone.probabilities, abs=1e-4
            )
            for one, other in zip(turn.faces, alone.faces, strict=True):
                assert torch.allclose(one.to_vector(), other.to_vector(), atol=1e-4)


def test_requests_of_one_kind_share_a_batch_and_pictures_are_read_when_their_turn_comes(
    model: FaceGPT,
) -> None:
    read: list[str] = []

    def picture(name: str) -> Callable[[], Image.Image]:
        return lambda: read.append(name) or gray_image()

    requests = [Request(name, "Who?", picture(name) if name in "ac" else None) for name in "abcd"]
    answered = answer_batch(model, requests, 2, max_new_tokens=1)
    assert read == []
    assert [request.id for request, _ in next(answered)] == ["b", "d"] and read == []
    assert [request.id for request, _ in next(answered)] == ["a", "c"] and read == ["a", "c"]
    assert list(answered) == []


def test_a_request_without_room_for_the_longest_reply_does_not_shorten_the_others(
    model: FaceGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = context_length(model)
    word = len(encode_prompt([Message("user", "word word")], model.processor)) - len(
        encode_prompt([Message("user", "word")], model.processor)
    )
    start = len(encode_prompt([Message("user", "word")], model.processor))
    long = Request("long", " ".join(["word"] * (1 + (limit - 4 - start) // word)))
    rooms: list[list[int]] = []
    original = answer

    def watched(model: FaceGPT, samples: list[Sample], max_new_tokens: int) -> list[Reply]:
        rooms.append([len(encode_prompt(sample.messages, model.processor)) for sample in samples])
        return original(model, samples, max_new_tokens)

    monkeypatch.setattr("facegpt.chat.answer", watched)
    assert len(list(answer_batch(model, [long, Request("short", "Who?")], 16, max_new_tokens=12))) == 2
    assert [len(room) for room in rooms] == [1, 1] and rooms[0][0] < rooms[1][0] <= limit - 4


def test_a_request_that_cannot_be_asked_is_named_before_any_is_answered(model: FaceGPT) -> None:
    long = "word " * context_length(model)
    for text, says in (
        (long, "bad has .* tokens, the model's context is"),
        (" ", "bad: the message is empty"),
    ):
        with pytest.raises(SampleError, match=says):
            next(answer_batch(model, [Request("good", "Who?"), Request("bad", text)]))


def test_a_reply_without_a_face_is_an_ordinary_turn(tmp_path: Path) -> None:
    silent = talking_model(small_head(), tmp_path / "tiny", speaks=False)
    row = next(p for n, p in silent.named_parameters() if "lm_head" in n and "trainable_tokens" in n)
    row.data.zero_()  # the output layer has no bias: its logit is 0, others are above
    turn = ChatSession(silent, max_new_tokens=4).say("How are you?")
    assert turn.faces == [] and turn.probabilities == []


def test_a_failed_turn_leaves_the_conversation_as_it_was(model: FaceGPT, tmp_path: Path) -> None:
    session = ChatSession(model, max_new_tokens=3)
    session.say("Show me the face.")
    before = list(session.messages)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff not a picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        session.say("And this?", broken)
    with pytest.raises(SampleError, match="context"):
        session.say("word " * context_length(model))
    assert session.messages == before and session.images == []
    session.say("Go on.")
    assert len(session.messages) == 4


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("  ", "empty"),
        ("<image>\nWho?", "<image>"),
        (f"Is it {FACE_TOKEN}?", FACE_TOKEN),
        ("caf\udce9", "UTF-8"),
    ],
)
def test_texts_that_cannot_be_encoded_are_refused(model: FaceGPT, text: str, match: str) -> None:
    with pytest.raises(SampleError, match=match):
        ChatSession(model).say(text)


def test_an_answer_is_cut_where_the_context_ends(model: FaceGPT) -> None:
    words = "word " * 60
    session = ChatSession(model, max_new_tokens=10_000)
    used = len(answer(model, [question(words)], max_new_tokens=1)[0].ids)
    assert used == 1
    session.say(words)  # would run beyond the last position without the limit


def test_an_empty_reply_and_a_spelled_placeholder_do_not_break_the_history(
    model: FaceGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter(["", "It shows <image> here.", "Fine."])
    nothing = torch.zeros(0)
    monkeypatch.setattr(
        "facegpt.chat.generate", lambda *_, **__: [Reply(next(replies), nothing, None, nothing)]
    )
    session = ChatSession(model)
    assert session.say("Hello?", gray_image()).text == ""
    assert session.messages == [] and session.images == []
    session.say("Hello?")
    assert session.say("Go on.").text == "Fine."


def test_sampling_is_repeatable_by_its_seed(model: FaceGPT) -> None:
    texts = [ChatSession(model, 6, temperature=1.5, seed=seed).say("Tell me.").text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_reset_forgets(model: FaceGPT) -> None:
    session = ChatSession(model, max_new_tokens=3)
    first = session.say("Show me the face.", gray_image()).text
    session.say("Another.")
    session.reset()
    assert session.say("Show me the face.", gray_image()).text == first and len(session.images) == 1


def test_without_a_path_the_checkpoint_is_the_one_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegpt.chat.SHIPPED_MODEL", tmp_path)
    with pytest.raises(MissingPartError, match="give one of your own with --checkpoint"):
        newest_checkpoint()
    (tmp_path / "facegpt.json").write_text("{}")
    assert newest_checkpoint() == tmp_path


def test_a_run_means_its_newest_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        newest_checkpoint(tmp_path)
    whole = ("facegpt.json", "face_head.safetensors", "adapter.safetensors")
    for step, files in {
        "step_000020": whole,
        "step_999999": whole,
        "step_1000000": whole,  # the seventh digit would sort before 999999 as text
        "step_1000020": whole[1:],  # still being written, or half removed
        "step_last": whole,
    }.items():
        folder = tmp_path / "checkpoints" / step
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text("{}")
    assert newest_checkpoint(tmp_path).name == "step_1000000"
    assert newest_checkpoint(tmp_path / "checkpoints" / "step_000020").name == "step_000020"
