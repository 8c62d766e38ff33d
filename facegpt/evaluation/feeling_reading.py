"""What does a language model name as the feeling of a situation? By likelihood, not by what it writes.

A small model prefers some words whatever the text. So plain likelihood stands beside two corrections: how
much likelier a situation makes a word than no situation does (pointwise mutual information, Holtzman et al.
2021), and than all the situations together do (calibrated, after Zhou et al. 2023). The last is told nothing
but that feelings come equally often; it is the most that can be read, the others read every text alone.

Shape legend: N texts, W words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import DynamicCache

from facegpt.data.conversation import encode_conversation, encode_prompt
from facegpt.evaluation.action_units import FEELINGS
from facegpt.model.facegpt import FaceGPT
from facegpt.sample import Message

QUESTION = "What does the person feel? Answer with one word."
WAYS = ("calibrated", "pmi", "likelihood")
WORDS = [(feeling, word) for feeling, row in FEELINGS.items() for word in row.words]


def named_feelings(model: FaceGPT, texts: Sequence[str]) -> dict[str, list[str]]:
    """The feeling that the model finds likeliest for each of N texts, in every `WAYS`.

    A feeling has several words; the best of them counts.
    """
    words = [word for _, word in WORDS]
    progress = tqdm(texts, desc="reading", unit="text")
    table = torch.stack([word_likelihoods(model, f"{text} {QUESTION}", words) for text in progress])
    prior = word_likelihoods(model, QUESTION, words)
    tables = (table - table.mean(dim=0), table - prior, table)
    return {way: _best(values) for way, values in zip(WAYS, tables, strict=True)}


def _best(table: Tensor) -> list[str]:
    """The feeling of the best word for each row (N,W)."""
    return [WORDS[column][0] for column in table.argmax(dim=1).tolist()]


@torch.no_grad()
def word_likelihoods(model: FaceGPT, text: str, words: Sequence[str]) -> Tensor:
    """Log-probability (W,) float64 in nats that each word, with its end token, is the whole answer to a text.

    The prompt runs once; all words are read behind its cache.
    """
    prompt = torch.tensor([encode_prompt([Message("user", text)], model.processor)], device=model.device)
    answers = [_answer_ids(model, text, word).to(model.device) for word in words]
    cache = DynamicCache(config=model.vlm.config.get_text_config())
    last = model.next_states(prompt, torch.ones_like(prompt), cache)[0][:, -1:]  # (1, 1, H)
    cache.batch_repeat_interleave(len(words))
    padded = pad_sequence(answers, batch_first=True)  # (W, t)
    said = padded[:, :-1]
    attention = prompt.new_ones(len(words), prompt.shape[1] + said.shape[1])
    more, _ = model.next_states(said, attention, cache)
    states = torch.cat([last.expand(len(words), -1, -1), more], dim=1)
    logits = model.vlm.get_output_embeddings()(states).float()  # (W, t, V)
    chosen = logits.gather(2, padded[..., None])[..., 0] - logits.logsumexp(dim=2)
    real = pad_sequence([torch.ones_like(ids) for ids in answers], batch_first=True)
    return (chosen * real).double().sum(dim=1).cpu()


def _answer_ids(model: FaceGPT, text: str, word: str) -> Tensor:
    """The tokens of a one-word answer with its end token, as training would supervise them."""
    encoded = encode_conversation([Message("user", text), Message("assistant", word)], model.processor)
    ids = [number for number, own in zip(encoded.input_ids, encoded.label_mask, strict=True) if own]
    return torch.tensor(ids)
