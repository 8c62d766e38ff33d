"""Batched generation that hands over the state behind every `<FACE>` as it is spoken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from facegpt.head.parameters import FaceParameters

if TYPE_CHECKING:
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


@torch.no_grad()
def generate(
    model: FaceGPT,
    input_ids: Tensor,
    attention_mask: Tensor,
    pixel_values: Tensor | None,
    max_new_tokens: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    synced_gpus: bool = False,
) -> list[Reply]:
    """Answer N prompts.

    input_ids, attention_mask (N,T) int64, padded on the left; pixel_values (M,3,h,w) in the order of the
    `<image>` tokens, or None. temperature 0 picks the likeliest token; otherwise tokens are sampled with
    `generator`, which makes the result reproducible.
    synchronised: needed when weights are sharded over ranks (ZeRO-3). All ranks must then call together, and
    step until the slowest has finished, because every step gathers weights.

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
        tokens, spoken = _decode(model, *prompts, max_new_tokens, temperature, generator, synced_gpus)
        states = spoken.states
        if not len(states):  # under ZeRO-3 every rank has to run the head: give it a row that nobody reads
            states = states.new_zeros(1, states.shape[1])
        faces = model.face_head.face_parameters(states)
    finally:
        model.train(training)
    return [_reply(model, row, tokens[row], spoken, faces) for row in range(len(tokens))]


@dataclass
class _Spoken:
    """Every `<FACE>` of a run: its row (F,), the state that predicted it (F,H) and its probability (F,)."""

    rows: Tensor
    states: Tensor
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
) -> tuple[list[Tensor], _Spoken]:
    """Token ids of each row, up to and with its end token, and the faces spoken on the way."""
    tokenizer = model.processor.tokenizer
    cache = DynamicCache(config=model.vlm.config.get_text_config())
    state = model.hidden_states(input_ids, attention_mask, pixel_values, cache)[:, -1]  # (N, H)
    alive = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    chosen: list[Tensor] = []
    rows, states, probabilities = [], [], []
    while len(chosen) < max_new_tokens:
        logits = model.vlm.get_output_embeddings()(state).float()  # (N, V)
        likely = logits.softmax(dim=-1)[:, model.face_token_id]
        token = _choose(_speakable(logits, model), temperature, generator)
        token = torch.where(alive, token, tokenizer.pad_token_id)
        chosen.append(token)
        speaking = torch.nonzero(token == model.face_token_id)[:, 0]
        rows.append(speaking)
        states.append(state[speaking])
        probabilities.append(likely[speaking])
        alive = alive & (token != tokenizer.eos_token_id)
        if not _anyone(alive, synced_gpus) or len(chosen) == max_new_tokens:
            break
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(token), 1)], dim=1)
        state = model.next_states(token[:, None], attention_mask, cache)[:, -1]
    table = torch.stack(chosen, dim=1).cpu()  # (N, steps)
    lengths = (table != tokenizer.pad_token_id).sum(dim=1).tolist()
    spoken = _Spoken(torch.cat(rows), torch.cat(states), torch.cat(probabilities))
    return [table[row, :length] for row, length in enumerate(lengths)], spoken


def _speakable(logits: Tensor, model: FaceGPT) -> Tensor:
    """Forbid what is no word: padding, the image placeholder, and vocabulary rows without a token."""
    tokenizer = model.processor.tokenizer
    logits[:, len(tokenizer) :] = -torch.inf
    logits[:, [tokenizer.pad_token_id, model.vlm.config.image_token_id]] = -torch.inf
    return logits


def _choose(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    probabilities = (logits / temperature).softmax(dim=-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def _anyone(alive: Tensor, synced_gpus: bool) -> bool:
    if synced_gpus:
        flag = alive.any().long()
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)
    return bool(alive.any())


def _reply(model: FaceGPT, row: int, ids: Tensor, spoken: _Spoken, faces: FaceParameters) -> Reply:
    mine = torch.nonzero(spoken.rows == row)[:, 0]
    text = model.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Reply(text, ids, faces[mine] if len(mine) else None, spoken.probabilities[mine])
