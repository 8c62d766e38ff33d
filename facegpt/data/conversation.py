"""Conversations to token ids and label mask, built together and message by message.

Nothing is tokenised twice and no offset is counted afterwards, so ids and mask cannot drift apart. The ids
are those that the tokenizer gives for the whole text; a test holds them equal to the processor's template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from facegpt.errors import SampleError
from facegpt.sample import FACE_TOKEN, IMAGE_TOKEN, Message


@dataclass(frozen=True)
class ChatFormat:
    """How turns are written: `{system}{user}{text}{between}{assistant} {answer}` and the end-of-text token.

    assistant must not end with a space: the answer brings it, as one piece with its first word.
    """

    system: str = ""
    user: str = "USER: "
    between: str = " "
    assistant: str = "ASSISTANT:"


VICUNA = (
    ChatFormat()
)  # LLaVA-1.5 as in its Hugging Face template: no system prompt, but </s> after each answer


@dataclass
class Encoded:
    """input_ids of one conversation, and whether each of these tokens is supervised."""

    input_ids: list[int] = field(default_factory=list)
    label_mask: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[int], supervised: bool) -> None:
        self.input_ids += ids
        self.label_mask += [supervised] * len(ids)


def encode_conversation(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    image_tokens: int,
    max_length: int | None = None,
    name: str = "the conversation",
    chat: ChatFormat = VICUNA,
) -> Encoded:
    """Ids and label mask of a whole conversation; every answer is supervised with its end-of-text token.

    Each `<image>` becomes `image_tokens` ids, each `<FACE>` one. Other special tokens that a text spells out
    (`</s>`) are encoded as plain text. A conversation longer than `max_length` loses its end.

    Raises SampleError, naming `name`, when turns do not alternate from user to assistant; when `<image>`
    stands anywhere but at the start of a user turn (before a line break), or `<FACE>` in a user turn; when
    truncation would cut one of them; and when no token is supervised.
    """
    check_messages(messages, "assistant", name)
    encoded = _encode(messages, tokenizer, image_tokens, name, chat)
    if max_length is not None and len(encoded.input_ids) > max_length:
        cut = encoded.input_ids[max_length:]
        for token in (IMAGE_TOKEN, FACE_TOKEN):
            if tokenizer.convert_tokens_to_ids(token) in cut:
                raise SampleError(
                    f"{name} has {len(encoded.input_ids)} tokens and truncation to {max_length} would cut "
                    f"{token}; shorten its text or raise the maximal length"
                )
        encoded = Encoded(encoded.input_ids[:max_length], encoded.label_mask[:max_length])
    if not any(encoded.label_mask):
        raise SampleError(
            f"{name} has no supervised token within its {len(encoded.input_ids)}; shorten the question"
        )
    return encoded


def encode_prompt(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    image_tokens: int,
    name: str = "the conversation",
    chat: ChatFormat = VICUNA,
) -> list[int]:
    """Ids of a conversation that ends with a user turn, up to where the answer begins; errors as above."""
    check_messages(messages, "user", name)
    return _encode(messages, tokenizer, image_tokens, name, chat).input_ids


def show_tokens(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokens of a conversation in one line, runs of supervised ones in [brackets], equal ones counted."""
    words: list[tuple[str, bool]] = []
    for token_id, supervised in zip(encoded.input_ids, encoded.label_mask, strict=True):
        words.append((str(tokenizer.convert_ids_to_tokens(token_id)), supervised))
    parts, position = [], 0
    while position < len(words):
        token, supervised = words[position]
        count = 1
        while position + count < len(words) and words[position + count] == (token, supervised):
            count += 1
        opens = supervised and (position == 0 or not words[position - 1][1])
        position += count
        closes = supervised and (position == len(words) or not words[position][1])
        text = token if count == 1 else f"{token}*{count}"
        parts.append("[" * opens + text + "]" * closes)
    return " ".join(parts)


def _encode(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    image_tokens: int,
    name: str,
    chat: ChatFormat,
) -> Encoded:
    pieces = _pieces(tokenizer)
    markers = {IMAGE_TOKEN: [_token_id(tokenizer, IMAGE_TOKEN)] * image_tokens}
    encoded = Encoded()
    encoded.add(pieces.begin, supervised=False)
    follow = pieces.first
    for turn, message in enumerate(messages):
        if message.role == "user":
            system = chat.system if turn == 0 else ""
            text = f"{system}{chat.user}{message.text}{chat.between}{chat.assistant}"
        else:
            text, follow = " " + message.text, pieces.within
            if FACE_TOKEN in text:
                markers[FACE_TOKEN] = [_token_id(tokenizer, FACE_TOKEN)]
        supervised = message.role == "assistant"
        for part in re.split(f"({IMAGE_TOKEN}|{FACE_TOKEN})", text):
            if part in markers:
                encoded.add(markers[part], supervised)
                follow = pieces.after_special
            elif part:
                encoded.add(follow(part), supervised)
        if supervised:
            encoded.add([pieces.end], supervised=True)
            follow = pieces.after_special
    return encoded


class _Pieces:
    """Tokenises stretches of text so that they join to what the tokenizer gives for the whole text.

    A SentencePiece tokenizer puts a space before the first word of a text, and some also after every special
    token; inside a text there is none. Special tokens are never read from the text itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.eos_token is None:
            raise ValueError("the tokenizer has no end-of-text token, so an answer could not end")
        self.end = int(tokenizer.eos_token_id)  # type: ignore[arg-type]
        with_start = tokenizer("a").input_ids
        self.begin = with_start[:1] if with_start[0] == tokenizer.bos_token_id else []
        # What stands before a stretch when it is encoded as inside of a text. A line break is a byte of its
        # own in SentencePiece vocabularies, so no merge reaches over it.
        self.anchor = "\n" if self.first("a") != self.first("\na")[len(self.first("\n")) :] else ""
        self.anchor_ids = self.first(self.anchor) if self.anchor else []
        after_end = tokenizer(f"{tokenizer.eos_token}a", add_special_tokens=False).input_ids[1:]
        self.after_special = self.first if after_end == self.first("a") else self.within

    def first(self, text: str) -> list[int]:
        """Ids of `text` at the beginning of everything."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return ids

    def within(self, text: str) -> list[int]:
        """Ids of `text` as it continues other text."""
        head, ids = self.anchor_ids, self.first(self.anchor + text)
        if ids[: len(head)] != head:
            raise ValueError(
                f"the tokenizer merges a line break with {text[:20]!r}; its pieces cannot be joined"
            )
        return ids[len(head) :]


@lru_cache(maxsize=4)
def _pieces(tokenizer: PreTrainedTokenizerBase) -> _Pieces:
    """Trying out how a tokenizer joins text takes as long as encoding a short conversation."""
    return _Pieces(tokenizer)


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no {token} token; add it before conversations are encoded")
    return int(token_id)  # type: ignore[arg-type]


def check_messages(messages: Sequence[Message], last: str, name: str) -> None:
    """Raise SampleError unless turns alternate, end with role `last`, and hold tokens only where they may."""
    roles = [message.role for message in messages]
    expected = ["user", "assistant"] * (len(roles) // 2 + 1)
    if not roles or roles != expected[: len(roles)] or roles[-1] != last:
        raise SampleError(
            f"{name} must alternate user and assistant and end with {last}, its turns are {roles}"
        )
    for message in messages:
        text = message.text
        if message.role == "user":
            if FACE_TOKEN in text:
                raise SampleError(f"{name} has {FACE_TOKEN} in a user turn; only answers may hold it")
            if IMAGE_TOKEN in re.sub(rf"^({IMAGE_TOKEN}\n)+", "", text):
                raise SampleError(
                    f"{name} has {IMAGE_TOKEN} inside a user turn; put it first, on its own line"
                )
        elif IMAGE_TOKEN in text:
            raise SampleError(f"{name} has {IMAGE_TOKEN} in an answer; only user turns may hold it")
        elif not text.strip():
            raise SampleError(f"{name} has an empty answer, there is nothing to learn from it")
