"""Talking with a model: one conversation, which is remembered, or many requests, each of them a new one.

Text and images go in, text and 3D faces come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from facegpt.data.collate import collate_prompts
from facegpt.data.conversation import encode_prompt
from facegpt.errors import CheckpointError, MissingPartError, SampleError
from facegpt.head.parameters import FaceParameters
from facegpt.model.checkpoint import DESCRIPTION, run_checkpoints
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import Listener, Reply, end_token_ids, generate
from facegpt.perception.images import read_image
from facegpt.sample import FACE_TOKEN, IMAGE_TOKEN, Message, Sample

SHIPPED_MODEL = Path(__file__).resolve().parent / "assets" / "small_facegpt"  # a checkpoint like any other


def question(text: str, image: Image.Image | None = None, name: str = "the question") -> Sample:
    """A sample of one user turn that waits for an answer, about an image where one is given."""
    text = text if image is None else f"{IMAGE_TOKEN}\n{text}"
    return Sample(name, "chat", [Message("user", text)], [] if image is None else [image])


def answer(
    model: FaceGPT,
    conversations: Sequence[Sample],
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    listener: Listener | None = None,
) -> list[Reply]:
    """Generate the answers to several conversations, each ending with a user turn, in one batch.

    The longest of them with its answer has to fit into the model's context; what is left there limits
    max_new_tokens. listener: hears the tokens of every step, see `facegpt.model.generation`.
    Raises SampleError, naming the conversation, for turns that do not alternate, images that do not match
    their `<image>` tokens, and a conversation that leaves no room for an answer.
    """
    batch = collate_prompts(conversations, model.processor)
    limit, length = context_length(model), batch.input_ids.shape[1]
    if length >= limit:
        longest = batch.ids[int(batch.attention_mask.sum(1).argmax())]
        raise SampleError(
            f"{longest} has {length} tokens, the model's context is {limit}: shorten it or start anew"
        )
    batch = batch.to(model.device)
    return generate(
        model,
        batch.input_ids,
        batch.attention_mask,
        batch.pixel_values,
        max_new_tokens=min(max_new_tokens, limit - length),
        temperature=temperature,
        generator=generator,
        listener=listener,
    )


class TextStream:
    """The text of one reply while it is generated: what `add` and `rest` return joins to `Reply.text`."""

    def __init__(self, model: FaceGPT) -> None:
        self.tokenizer = model.processor.tokenizer
        self.ends = set(end_token_ids(model))
        self.ids: list[int] = []
        self.sent = ""

    def add(self, token: int) -> str:
        """What one token more adds to the text; "" for an end token and for half of a character."""
        if token in self.ends:
            return ""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True).strip()
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else self.rest(text)

    def rest(self, text: str) -> str:
        """What is still to be sent of `text`, the reply so far."""
        piece, self.sent = text[len(self.sent) :], text
        return piece


@dataclass
class Request:
    """One question of many, a conversation of its own. id: what errors and replies call it.

    image: a picture, or a function that reads it when its turn comes.
    """

    id: str
    text: str
    image: Image.Image | Callable[[], Image.Image] | None = None


def answer_batch(
    model: FaceGPT, requests: Sequence[Request], batch_size: int = 16, max_new_tokens: int = 256
) -> Iterator[list[tuple[Request, Turn]]]:
    """Answer many requests, always with the likeliest token; yields every batch as soon as it is answered.

    Requests of one kind and of like length share a batch, so the order is not that of `requests`. What is
    answered does not depend on the batch but for the rounding of its sums: a request too long for
    `max_new_tokens` within the model's context is answered alone, with what is left there.
    Raises SampleError, naming the request, before the first is answered: for a text that `check_text` refuses
    and for one that fills the context. What a function in `image` raises comes when its turn comes.
    """
    limit = context_length(model)
    lengths = [_prompt_length(model, request) for request in requests]
    for request, length in zip(requests, lengths, strict=True):
        if length >= limit:
            raise SampleError(f"{request.id} has {length} tokens, the model's context is {limit}: shorten it")
    order = sorted(range(len(requests)), key=lambda i: (requests[i].image is not None, lengths[i]))
    alone = [i for i in order if lengths[i] + max_new_tokens > limit]
    together = [i for i in order if lengths[i] + max_new_tokens <= limit]
    batches = [together[start : start + batch_size] for start in range(0, len(together), batch_size)]
    for batch in [*batches, *([i] for i in alone)]:
        chosen = [requests[i] for i in batch]
        samples = []
        for request in chosen:
            image = request.image() if callable(request.image) else request.image
            samples.append(question(request.text, image, request.id))
        replies = answer(model, samples, max_new_tokens)
        yield [(request, as_turn(reply)) for request, reply in zip(chosen, replies, strict=True)]


def _prompt_length(model: FaceGPT, request: Request) -> int:
    """Tokens of a request with its image. SampleError, naming it, for a text that cannot be asked."""
    try:
        check_text(request.text)
    except SampleError as error:
        raise SampleError(f"{request.id}: {error}") from None
    text = request.text if request.image is None else f"{IMAGE_TOKEN}\n{request.text}"
    return len(encode_prompt([Message("user", text)], model.processor, request.id))


def newest_checkpoint(path: str | Path | None = None) -> Path:
    """The checkpoint directory that `path` means: itself, or the newest one of a run directory.

    None means the model that comes with the package. Raises CheckpointError when there is none, and
    MissingPartError where this copy of the package comes without a model.
    """
    if path is None:
        if not (SHIPPED_MODEL / DESCRIPTION).is_file():
            raise MissingPartError(
                f"this copy of facegpt comes without its model ({SHIPPED_MODEL} holds no checkpoint); "
                "give one of your own with --checkpoint RUN"
            )
        return SHIPPED_MODEL
    path = Path(path)
    if (path / DESCRIPTION).is_file():
        return path
    found = run_checkpoints(path)
    if not found:
        raise CheckpointError(
            f"{path} holds no checkpoint; give a run directory or a folder with {DESCRIPTION}"
        )
    return found[-1]


def context_length(model: FaceGPT) -> int:
    """The most tokens, image tokens and answer included, that the language model has positions for."""
    return int(model.vlm.config.get_text_config().max_position_embeddings)


@dataclass
class Turn:
    """One reply. text shows `<FACE>` where the model said it; faces holds one entry (batch of 1) for each.

    probabilities: how likely the model found each `<FACE>` where it said it, in [0,1]. A reply without faces
    is an ordinary answer, not an error.
    """

    text: str
    faces: list[FaceParameters]
    probabilities: list[float]


def as_turn(reply: Reply) -> Turn:
    """A reply with its faces one by one."""
    faces = [] if reply.faces is None else [reply.faces[i] for i in range(len(reply.faces))]
    return Turn(reply.text, faces, reply.face_probabilities.tolist())


class ChatSession:
    """A conversation with one model. `messages` and `images` are what has been said and shown so far.

    Example:
        session = ChatSession(model)
        turn = session.say("What is the 3D face in this picture?", "photo.jpg")
        mesh = head.mesh(turn.faces[0])
    """

    def __init__(
        self, model: FaceGPT, max_new_tokens: int = 256, temperature: float = 0.0, seed: int | None = None
    ) -> None:
        """temperature 0 always takes the likeliest token; above 0, `seed` makes the draws repeatable."""
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.messages: list[Message] = []
        self.images: list[Image.Image] = []
        self._generator = None if seed is None else torch.Generator(model.device).manual_seed(seed)

    def say(
        self,
        text: str,
        image: Image.Image | str | Path | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Turn:
        """Send a user turn, with an image before the text where there is one, and return the reply.

        on_text: is given the reply's text piece by piece, while it is spoken.
        A failed turn and an empty reply leave the conversation as it was, so one can go on after them.
        Raises SampleError for a text that `check_text` refuses, and for a conversation that has outgrown the
        model's context; ImageError for an unreadable image.
        """
        check_text(text)
        shown = list(self.images)
        if image is not None:
            shown.append(image.convert("RGB") if isinstance(image, Image.Image) else read_image(image))
            text = f"{IMAGE_TOKEN}\n{text}"
        said = [*self.messages, Message("user", text)]
        stream = TextStream(self.model)

        def listen(tokens: torch.Tensor) -> torch.Tensor:
            if on_text and (piece := stream.add(int(tokens[0]))):
                on_text(piece)
            return tokens >= 0

        sample = Sample("the chat", "chat", said, shown)
        sampling = (self.max_new_tokens, self.temperature, self._generator)
        reply = answer(self.model, [sample], *sampling, listen)[0]
        if on_text and (piece := stream.rest(reply.text)):
            on_text(piece)
        if reply.text:
            # A model may spell the placeholder letter by letter; as history it must not ask for an image.
            self.messages = [*said, Message("assistant", reply.text.replace(IMAGE_TOKEN, "image"))]
            self.images = shown
        return as_turn(reply)

    def reset(self) -> None:
        """Forget the conversation."""
        self.messages, self.images = [], []


def check_text(text: str) -> None:
    """Raise SampleError for a message that is empty, no valid Unicode, or spells `<image>` or `<FACE>`."""
    try:
        text.encode()
    except UnicodeEncodeError:  # what Python makes of a terminal's or pipe's bytes that are not UTF-8
        raise SampleError("the message is not valid UTF-8; write or pipe it in UTF-8") from None
    if not text.strip():
        raise SampleError("the message is empty; write a question or a description")
    for token, advice in (
        (IMAGE_TOKEN, "give the picture as the image"),
        (FACE_TOKEN, "only the model says it"),
    ):
        if token in text:
            raise SampleError(f"the message spells {token}; leave it out, {advice}")
