"""The chat format of a backbone: what its template writes around questions, images and answers.

It is read off the processor's own template by rendering a few conversations, and then compared with the
template on others. So training and generation speak as the backbone was taught, and a template that cannot
be taken apart (one that writes a turn differently by its place, or never ends an answer) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from facegpt.errors import CheckpointError
from facegpt.sample import IMAGE_TOKEN, Message

# A message's text, its images before it, as `ns.text`.
_CONTENT = (
    "{% set ns = namespace(text='') %}"
    "{% if message['content'] is string %}{% set ns.text = message['content'] %}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{% set ns.text = ns.text + '<image>\n' %}"
    "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{% set ns.text = ns.text + part['text'] %}"
    "{% endfor %}"
    "{% endif %}"
)

# LLaVA-1.5's Vicuna format without its system prompt. It is our own because the published llava-1.5-7b-hf
# template ends an assistant turn with a space instead of </s>: a model trained on that never learns to stop.
VICUNA_TEMPLATE = (
    "{% for message in messages %}"
    + _CONTENT
    + "{% if message['role'] == 'user' %}{{ 'USER: ' + ns.text + ' ' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ 'ASSISTANT: ' }}{% generation %}{{ ns.text + '</s>' }}{% endgeneration %}"
    "{% else %}{{ ns.text + ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# SmolLM2's own format (ChatML with a system message), with images before the text of their turn.
CHATML_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named "
    "SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}" + _CONTENT + "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ns.text + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ ns.text + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Turns by which a template is taken apart, and padded ones that show whether it strips them.
MARKS = ("first-question", "first-answer", "second-question", "second-answer")
PADDED = (" third-question \n", " third-answer \n", "\n fourth-question", "fourth-answer ")


class Piece(NamedTuple):
    """A stretch of a conversation as text; fixed ones are the format's own and may hold special tokens."""

    text: str
    fixed: bool
    supervised: bool


@dataclass(frozen=True)
class ChatFormat:
    """What stands between the texts of a conversation that starts with a user turn.

    opening: before the first user text (start token, default system prompt, header of the user turn).
    image: what one image puts before the user text, with `image_token` in it once.
    header: from a user text to where generation begins. lead: from there to the answer's text, learnt as a
        part of the answer (Vicuna's space).
    end: the end token of an answer, learnt too. between: from there to the next user text, closing: from
        there to the end of everything.
    strips: whether texts lose the white space around them.

    Example (ChatML): opening "<|im_start|>user\\n", header "<|im_end|>\\n<|im_start|>assistant\\n", lead "",
    end "<|im_end|>", between "\\n<|im_start|>user\\n", closing "\\n".
    """

    opening: str
    image: str
    image_token: str
    header: str
    lead: str
    end: str
    between: str
    closing: str
    strips: bool

    @property
    def end_token(self) -> str:
        """The token that ends an answer; `end` may have white space before it."""
        return self.end.strip()

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """A conversation of alternating turns, user first, in pieces that join to the template's text.

        User texts may begin with one `<image>` line per image. After a user turn at the end follows what an
        answer is generated from.
        """
        pieces: list[Piece] = []
        for turn, message in enumerate(messages):
            text = message.text
            if message.role == "user":
                pieces.append(Piece(self.between if turn else self.opening, True, False))
                while text.startswith(f"{IMAGE_TOKEN}\n"):
                    text = text.removeprefix(f"{IMAGE_TOKEN}\n")
                    pieces.append(Piece(self.image, True, False))
                pieces.append(Piece(text.strip() if self.strips else text, False, False))
                pieces.append(Piece(self.header, True, False))
            else:
                pieces.append(Piece(self.lead, True, True))
                pieces.append(Piece(text.strip() if self.strips else text, False, True))
                pieces.append(Piece(self.end, True, True))
        if messages[-1].role == "assistant":
            pieces.append(Piece(self.closing, True, False))
        return [piece for piece in pieces if piece.text]

    def write(self, messages: Sequence[Message]) -> str:
        """The conversation as text, as the template writes it."""
        return "".join(piece.text for piece in self.pieces(messages))


def chat_format(processor: Any) -> ChatFormat:
    """The format of the processor's chat template.

    Raises CheckpointError when there is no template or it cannot be followed.
    """
    if not processor.chat_template:
        raise CheckpointError(
            f"the processor of {_name(processor)} brings no chat template; add its chat_template.jinja"
        )
    return _read_template(processor, str(processor.chat_template))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The special tokens as `AddedToken`s by their text, which says what white space beside them they eat."""
    return {token.content: token for token in tokenizer.added_tokens_decoder.values() if token.special}


@lru_cache(maxsize=8)
def _read_template(processor: Any, template: str) -> ChatFormat:
    """`template` is the processor's own; it is an argument so that another one is read anew."""
    reasons = []
    for in_parts in (True, False):  # image and text as parts of a turn, or one string with a placeholder
        try:
            fmt = _take_apart(processor, in_parts)
            if all(fmt.write(turns) == _render(processor, turns, in_parts) for turns in _trials()):
                return fmt
            reasons.append("it writes a turn differently by its place or its text")
        except Exception as error:  # templates are programs and raise what they like
            reasons.append(" ".join(str(error).split())[:200])
    raise CheckpointError(
        f"the chat template of {_name(processor)} cannot be followed ({reasons[0]}; with texts as plain "
        f"strings: {reasons[1]}); give the backbone one that writes all turns alike and ends answers with a "
        "special token"
    )


def _take_apart(processor: Any, in_parts: bool) -> ChatFormat:
    """The format that a few renderings show; ValueError when they show none."""
    turns = _turns(MARKS)
    opening, to_answer, to_question, _, closing = _around(MARKS, _render(processor, turns, in_parts))
    _, header = _around(MARKS[:1], _render(processor, turns[:1], in_parts))
    if not to_answer.startswith(header):
        raise ValueError("what it writes for generation is not how its answers begin")
    special = sorted(special_tokens(processor.tokenizer), key=len, reverse=True)
    end = re.match(rf"\s*({'|'.join(map(re.escape, special))})", closing)
    if end is None or not end[1] or not to_question.startswith(end[0]):
        raise ValueError("no special token ends its answers")
    image_token = getattr(processor, "image_token", IMAGE_TOKEN)
    image = f"{image_token}\n"
    if in_parts:
        shown = Message("user", f"{IMAGE_TOKEN}\n{MARKS[0]}")
        before, _ = _around(MARKS[:1], _render(processor, [shown], in_parts))
        image = before.removeprefix(opening)
        if not before.startswith(opening) or image.count(image_token) != 1:
            raise ValueError("it does not put images before the text of their turn")
    padded = _turns(PADDED)[:1]
    return ChatFormat(
        opening=opening,
        image=image,
        image_token=image_token,
        header=header,
        lead=to_answer.removeprefix(header),
        end=end[0],
        between=to_question.removeprefix(end[0]),
        closing=closing.removeprefix(end[0]),
        strips=padded[0].text not in _render(processor, padded, in_parts),
    )


def _trials() -> list[list[Message]]:
    """Conversations on which format and template are compared: of 1 to 4 turns, padded texts, images."""
    plain, padded = _turns(MARKS), _turns(PADDED)
    shown = [Message("user", f"{IMAGE_TOKEN}\n" * 2 + MARKS[0]), plain[1]]
    again = [*shown, Message("user", f"{IMAGE_TOKEN}\n{MARKS[2]}"), plain[3]]
    longest = (plain, padded, [*plain, *padded], again)
    return [turns[:count] for turns in longest for count in range(1, len(turns) + 1)]


def _turns(texts: Sequence[str]) -> list[Message]:
    return [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


def _around(marks: Sequence[str], text: str) -> list[str]:
    """The stretches before, between and after the marks, which must all be in the text once and in order."""
    parts = re.split("|".join(marks), text)
    if len(parts) != len(marks) + 1 or re.findall("|".join(marks), text) != list(marks):
        raise ValueError("a text of a turn is missing in what it writes")
    return parts


def _render(processor: Any, messages: Sequence[Message], in_parts: bool) -> str:
    """What the template makes of the conversation; up to where an answer begins if a user turn is last."""
    rows = []
    for message in messages:
        text = message.text.replace(f"{IMAGE_TOKEN}\n", "")
        images = message.text.count(f"{IMAGE_TOKEN}\n")
        parts = [{"type": "image"}] * images + [{"type": "text", "text": text}]
        in_text = f"{getattr(processor, 'image_token', IMAGE_TOKEN)}\n" * images + text
        rows.append({"role": message.role, "content": parts if in_parts else in_text})
    ends_with_question = messages[-1].role == "user"
    return str(processor.apply_chat_template(rows, tokenize=False, add_generation_prompt=ends_with_question))


def _name(processor: Any) -> str:
    return str(processor.tokenizer.name_or_path or "the backbone")
