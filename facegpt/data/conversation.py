"""Conversations to token ids and label mask, built together and message by message.

Nothing is tokenised twice and no offset is counted afterwards, so ids and mask cannot drift apart. The ids
are those that the tokenizer gives for the whole text of the backbone's chat template; tests hold them equal
for four formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from facegpt.errors import SampleError
from facegpt.model.backbone import image_token_count
from facegpt.model.chat_format import Piece, chat_format, special_tokens
from facegpt.sample import FACE_TOKEN, IMAGE_TOKEN, Message, Sample

FACE = re.compile(f"({FACE_TOKEN})")


@dataclass
class Encoded:
    """input_ids of one conversation, and whether each of these tokens is supervised."""

    input_ids: list[int] = field(default_factory=list)
    label_mask: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[int], supervised: bool) -> None:
        """Append ids that are all supervised, or none of them."""
        self.input_ids += ids
        self.label_mask += [supervised] * len(ids)


def encode_conversation(
    messages: Sequence[Message],
    processor: ProcessorMixin,
    max_length: int | None = None,
    name: str = "the conversation",
) -> Encoded:
    """Ids and label mask of a whole conversation in the chat format of the processor's backbone.

    Every answer is supervised with its end token, and nothing of the headers. Each `<image>` becomes as many
    ids as an image takes in the backbone, each `<FACE>` one. Special tokens that a text spells out (`</s>`,
    `<|im_start|>`) are encoded as plain text. A conversation longer than `max_length` loses its end.

    Raises SampleError, naming `name`, when turns do not alternate from user to assistant; when `<image>`
    stands anywhere but at the start of a user turn (before a line break), or `<FACE>` in a user turn; when
    truncation would cut one of them; and when no token is supervised. CheckpointError for a chat template
    that cannot be followed.
    """
    check_messages(messages, "assistant", name)
    encoded = _encode(messages, processor)
    if max_length is not None and len(encoded.input_ids) > max_length:
        tokenizer, cut = processor.tokenizer, encoded.input_ids[max_length:]
        for shown, token in ((IMAGE_TOKEN, chat_format(processor).image_token), (FACE_TOKEN, FACE_TOKEN)):
            if tokenizer.convert_tokens_to_ids(token) in cut:
                raise SampleError(
                    f"{name} has {len(encoded.input_ids)} tokens and truncation to {max_length} would cut "
                    f"{shown}; shorten its text or raise the maximal length"
                )
        encoded = Encoded(encoded.input_ids[:max_length], encoded.label_mask[:max_length])
    if not any(encoded.label_mask):
        raise SampleError(
            f"{name} has no supervised token within its {len(encoded.input_ids)}; shorten the question"
        )
    return encoded


def encode_prompt(
    messages: Sequence[Message], processor: ProcessorMixin, name: str = "the conversation"
) -> list[int]:
    """Ids of a conversation that ends with a user turn, up to where the answer begins; errors as above."""
    check_messages(messages, "user", name)
    return _encode(messages, processor).input_ids


def _encode(messages: Sequence[Message], processor: Any) -> Encoded:
    chat = chat_format(processor)
    stretches = _stretches(processor.tokenizer, chat.image_token)
    encoded = Encoded()
    follow = stretches.first
    if not chat.opening.startswith(processor.tokenizer.bos_token or "<no start token>"):
        encoded.add(stretches.begin, supervised=False)
    for text, is_token, supervised in _atoms(chat.pieces(messages), stretches):
        if is_token:
            count = image_token_count(processor) if text == chat.image_token else 1
            encoded.add([_token_id(processor.tokenizer, text)] * count, supervised)
            follow = stretches.after_special
        else:
            encoded.add(follow(text), supervised)
            follow = stretches.within
    return encoded


class _Atom(NamedTuple):
    """A special token, or a stretch of text between two of them that is encoded in one go."""

    text: str
    is_token: bool
    supervised: bool


def _atoms(pieces: Sequence[Piece], stretches: _Stretches) -> list[_Atom]:
    """The pieces cut at special tokens (in the format's own text only) and at `<FACE>`.

    Neighbouring stretches of text are joined, so that they are encoded as the tokenizer would encode the
    whole. Only where an answer follows a header without a special token between them there is a cut, because
    there generation begins.
    """
    atoms: list[_Atom] = []
    for piece in pieces:
        tokens = stretches.tokens if piece.fixed else FACE
        for number, text in enumerate(tokens.split(piece.text)):
            _append(atoms, _Atom(text, number % 2 == 1, piece.supervised), stretches.special)
    return atoms


def _append(atoms: list[_Atom], atom: _Atom, special: Mapping[str, AddedToken]) -> None:
    """Add an atom; white space beside a special token goes where the token eats it (Phi's line breaks)."""
    last = atoms[-1] if atoms else None
    if atom.is_token:
        eats = atom.text in special and special[atom.text].lstrip
        while eats and atoms and not atoms[-1].is_token:
            last = atoms.pop()
            if last.text.rstrip():
                atoms.append(last._replace(text=last.text.rstrip()))
                break
        atoms.append(atom)
        return
    text = atom.text
    if last and last.text in special and last.is_token and special[last.text].rstrip:
        text = text.lstrip()
    if text and last and not last.is_token and last.supervised == atom.supervised:
        atoms[-1] = last._replace(text=last.text + text)
    elif text:
        atoms.append(atom._replace(text=text))


class _Stretches:
    """Tokenises stretches of text so that they join to what the tokenizer gives for the whole text.

    A SentencePiece tokenizer puts a space before the first word of a text, and some also after every special
    token; inside a text there is none. Special tokens are never read from the text itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_token: str) -> None:
        self.tokenizer = tokenizer
        self.special = special_tokens(tokenizer)
        longest_first = sorted({image_token, *self.special}, key=len, reverse=True)
        self.tokens = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
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
def _stretches(tokenizer: PreTrainedTokenizerBase, image_token: str) -> _Stretches:
    """Trying out how a tokenizer joins text takes as long as encoding a short conversation."""
    return _Stretches(tokenizer, image_token)


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no {token} token; add it before conversations are encoded")
    return int(token_id)  # type: ignore[arg-type]


def validate_sample(sample: Sample, prompt: bool = False) -> None:
    """Raise SampleError, naming the sample, unless turns, tokens, images and face targets fit together.

    prompt: the conversation ends with a user turn, and its face targets are for comparison only.
    """
    check_messages(sample.messages, "user" if prompt else "assistant", sample.id)
    text = "".join(message.text for message in sample.messages)
    if text.count(IMAGE_TOKEN) != len(sample.images):
        raise SampleError(
            f"{sample.id} has {text.count(IMAGE_TOKEN)} {IMAGE_TOKEN} and {len(sample.images)} images; "
            "there must be one for each"
        )
    if not prompt and text.count(FACE_TOKEN) != len(sample.faces):
        raise SampleError(
            f"{sample.id} has {text.count(FACE_TOKEN)} {FACE_TOKEN} and {len(sample.faces)} face targets; "
            "there must be one for each"
        )


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
