"""Batched generation that hands over the state behind every `<FACE>` as it is spoken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from facegpt.head.parameters import FaceParameters
from facegpt.model.chat_format import chat_format
from facegpt.model.facegpt import FaceGPT


@dataclass
class Reply:
    """One answer.

    text: what was said, `<FACE>` visible, without the end token.
    ids (L,): its tokens on the CPU; the last is the end token unless the answer was cut at max_new_tokens.
    faces: one row per `<FACE>` in `text`, None without any.
    face_probabilities (F,): how likely the model found each of these tokens, at temperature 1.
    """

    text: str
    ids: Tensor
    faces: FaceParameters | None
    face_probabilities: Tensor


# Given the tokens (N,) of one step, -1 in rows that have ended; returns (N,) bool, which rows may go on.
Listener = Callable[[Tensor], Tensor]


@torch.no_grad()
def generate(
    model: FaceGPT,
    input_ids: Tensor,
    attention_mask: Tensor,
    pixel_values: Tensor | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    synced_gpus: bool = False,
    listener: Listener | None = None,
) -> list[Reply]:
    """Answer N prompts.

    input_ids, attention_mask (N,T) int64, padded on the left; pixel_values (M,3,h,w) in the order of the
    `<image>` tokens, or None. temperature 0 picks the likeliest token; otherwise tokens are sampled with
    `generator`, which makes the result reproducible.
    synced_gpus: needed when weights are sharded over ranks (ZeRO-3). All ranks must then call together, and
    step until the slowest has finished, because every step gathers weights.
    listener: hears every step, and may end rows.

    Raises ValueError for right-padded prompts or a max_new_tokens below 1, SampleError when images and
    `<image>` tokens do not match.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, at least 1 is needed")
    if not bool(attention_mask[:, -1].all()):
        raise ValueError("prompts must be padded on the left: a prompt's last token must be its last column")
    training = model.training
    model.eval()
    try:
        prompts = (input_ids, attention_mask, pixel_values)
        tokens, emitted = _decode(
            model, *prompts, max_new_tokens, temperature, generator, synced_gpus, listener
        )
        read = [emitted.states, emitted.images, emitted.texts]
        if not len(emitted.rows):  # under ZeRO-3 every rank has to run the head: a row that nobody reads
            read = [tensor.new_zeros(1, tensor.shape[1]) for tensor in read]
        faces = model.face_head.face_parameters(*read)
    finally:
        model.train(training)
    return [_reply(model, row, tokens[row], emitted, faces) for row in range(len(tokens))]


def end_token_ids(model: FaceGPT) -> list[int]:
    """The tokens that end an answer: the chat format's, the tokenizer's, and those of the generation config.

    They often differ: a chat model may end its turns with one token and its texts with another.
    """
    tokenizer, config = model.processor.tokenizer, model.vlm.generation_config
    ends = {tokenizer.eos_token_id}
    ends.add(tokenizer.convert_tokens_to_ids(chat_format(model.processor).end_token))
    configured = None if config is None else config.eos_token_id
    ends.update(configured if isinstance(configured, list) else [configured])
    return sorted(ends - {None})


@dataclass
class EmittedFaces:
    """Every `<FACE>` of a run: its row (F,), the state that predicted it (F,H) and its probability (F,).

    images (F,H): mean token of the last image of the row, zeros without one. texts (F,H): mean state of the
    text up to there.
    """

    rows: Tensor
    states: Tensor
    images: Tensor
    texts: Tensor
    probabilities: Tensor


def _decode(
    model: FaceGPT,
    input_ids: Tensor,
    attention_mask: Tensor,
    pixel_values: Tensor | None,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator | None,
    synced_gpus: bool,
    listener: Listener | None,
) -> tuple[list[Tensor], EmittedFaces]:
    """Token ids of each row, up to and with its end token, and the faces emitted on the way."""
    ends = torch.tensor(end_token_ids(model), device=input_ids.device)
    cache = DynamicCache(config=model.vlm.config.get_text_config())
    hidden, images = model.hidden_states(input_ids, attention_mask, pixel_values, cache)
    everyone = torch.arange(len(input_ids), device=input_ids.device)
    last = torch.full_like(everyone, input_ids.shape[1] - 1)
    context = model.image_context(input_ids, images, everyone, last)  # (N, H)
    text, count = model.text_context(input_ids, attention_mask, hidden, everyone, last)  # (N, H), (N, 1)
    state = hidden[:, -1]  # (N, H)
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    lengths = torch.zeros_like(unfinished, dtype=torch.int64)
    chosen: list[Tensor] = []
    rows, states, texts, probabilities = [], [], [], []
    while len(chosen) < max_new_tokens:
        logits = model.vlm.get_output_embeddings()(state).float()  # (N, V)
        likely = logits.softmax(dim=-1)[:, model.face_token_id]
        token = _choose(mask_forbidden(logits, model, ends), temperature, generator)
        token = torch.where(unfinished, token, ends[0])  # what a finished row repeats, nobody reads
        chosen.append(token)
        lengths += unfinished
        emitting = torch.nonzero(token == model.face_token_id)[:, 0]
        rows.append(emitting)
        states.append(state[emitting])
        texts.append(text[emitting])
        probabilities.append(likely[emitting])
        heard = torch.where(unfinished, token, -1)
        unfinished = unfinished & ~torch.isin(token, ends)
        if listener is not None:
            unfinished = unfinished & listener(heard)
        if not any_unfinished(unfinished, synced_gpus) or len(chosen) == max_new_tokens:
            break
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(token), 1)], dim=1)
        state = model.next_states(token[:, None], attention_mask, cache)[:, -1]
        count = count + 1
        text = text + (state.float() - text) / count  # the mean of one state more
    table = torch.stack(chosen, dim=1).cpu()  # (N, steps)
    where = torch.cat(rows)
    emitted = EmittedFaces(
        where, torch.cat(states), context[where], torch.cat(texts), torch.cat(probabilities)
    )
    return [table[row, :length] for row, length in enumerate(lengths.tolist())], emitted


def mask_forbidden(logits: Tensor, model: FaceGPT, ends: Tensor) -> Tensor:
    """Forbid, in place, what is no word: padding, the image placeholder, and rows without a token.

    logits (N,V). Padding that is an end token as well (many backbones have no other) stays allowed.
    """
    tokenizer = model.processor.tokenizer
    logits[:, len(tokenizer) :] = -torch.inf
    logits[:, model.vlm.config.image_token_id] = -torch.inf
    if tokenizer.pad_token_id not in ends.tolist():
        logits[:, tokenizer.pad_token_id] = -torch.inf
    return logits


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    probabilities = (logits / temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def any_unfinished(unfinished: Tensor, synced_gpus: bool) -> bool:
    """Whether a row (of any rank, if synced) goes on; unfinished (N,) bool."""
    if synced_gpus:
        flag = unfinished.any().long()
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)
    return bool(unfinished.any())


def _reply(model: FaceGPT, row: int, ids: Tensor, emitted: EmittedFaces, faces: FaceParameters) -> Reply:
    in_row = torch.nonzero(emitted.rows == row)[:, 0]
    said = ids[:-1] if int(ids[-1]) in end_token_ids(model) else ids  # an end token need not be "special"
    text = model.processor.tokenizer.decode(said, skip_special_tokens=True).strip()
    return Reply(text, ids, faces[in_row] if len(in_row) else None, emitted.probabilities[in_row])
