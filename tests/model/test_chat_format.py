"""Templates are taken apart and compared; those that cannot be followed are refused with a sentence."""

from __future__ import annotations

import pytest
from chat_formats import FORMATS, LLAVA_15_PUBLISHED, SMOLLM2, chat_processor

from facegpt.errors import CheckpointError
from facegpt.model.chat_format import chat_format
from facegpt.sample import Message


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_writes_what_its_template_writes(name: str) -> None:
    processor = chat_processor(name)
    turns = [Message("user", "<image>\nWho?"), Message("assistant", "A man."), Message("user", "And here?")]
    text = chat_format(processor).write(turns)
    parts = [{"type": "image"}, {"type": "text", "text": "Who?"}]
    rows = [
        {"role": "user", "content": parts if name in ("vicuna", "qwen parts") else "<image>\nWho?"},
        *[{"role": turn.role, "content": turn.text} for turn in turns[1:]],
    ]
    if name == "qwen parts":
        rows[1:] = [{"role": t.role, "content": [{"type": "text", "text": t.text}]} for t in turns[1:]]
    assert text == processor.apply_chat_template(rows, tokenize=False, add_generation_prompt=True)


def test_the_parts_of_chatml() -> None:
    chat = chat_format(chat_processor("smollm2"))
    assert chat.opening.startswith("<|im_start|>system\nYou are") and chat.end_token == "<|im_end|>"
    assert chat.header == "<|im_end|>\n<|im_start|>assistant\n" and chat.lead == ""
    assert chat.between == "\n<|im_start|>user\n" and chat.closing == "\n"


def test_another_template_of_the_same_processor_is_read_anew() -> None:
    processor = chat_processor("smollm2")
    first = chat_format(processor)
    processor.chat_template = SMOLLM2.replace("SmolLM", "Somebody")
    assert "Somebody" in chat_format(processor).opening and "SmolLM" in first.opening


THINKING = SMOLLM2.replace("+ message['content']", "+ ('<think>' if loop.last else '') + message['content']")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (LLAVA_15_PUBLISHED, "no special token ends"),
        (THINKING, "cannot be followed"),
        ("{{ messages[0]['content'] }}", "missing"),
        (SMOLLM2.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<think>' }}"), "for generation"),
        ("{{ raise_exception('no roles') }}", "no roles"),
        ("{% if %}", "cannot be followed"),
        (None, "brings no chat template"),
    ],
)
def test_a_template_that_cannot_be_followed_is_refused(template: str | None, reason: str) -> None:
    processor = chat_processor("smollm2")
    processor.chat_template = template
    with pytest.raises(CheckpointError, match=reason) as caught:
        chat_format(processor)
    assert "\n" not in str(caught.value)
