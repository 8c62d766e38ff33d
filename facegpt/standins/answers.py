"""What a tiny LLaVA answers about held-out faces and situations, and how much of it is right."""

from __future__ import annotations

import math
import random
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from facegpt.data.conversation import encode_prompt
from facegpt.standins.conversations import questions_about, reading_conversation, to_messages
from facegpt.standins.language import Facts
from facegpt.standins.situations import situations

MEASURED = 128  # held-out faces that are asked questions at the end


@torch.no_grad()
def answer_accuracy(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, features: Tensor, facts: list[Facts],
    held_out: int, seed: int,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Exact-match accuracy of greedy answers on held-out faces and situations, point error in grid cells.

    features (n,patches,hidden): of the vision tower, for n images; facts of the same n, the last
    `held_out` were not trained on. Returns kind of question -> accuracy and count.
    """
    rng = random.Random(seed + 1)
    model.eval()
    scores: dict[str, list[float]] = defaultdict(list)
    cells: list[float] = []
    first = len(facts) - held_out
    for row in tqdm(range(first, first + min(held_out, MEASURED)), desc="measure", mininterval=5):
        for question, truth in questions_about(facts[row], rng, 4):
            answer = greedy_answer(model, processor, question, features[row : row + 1])
            if question.startswith("Where is") and truth.startswith("At "):
                numbers = [int(w) for w in answer.strip(".").split() if w.isdigit()]
                wanted = [int(w) for w in truth.strip(".").split() if w.isdigit()]
                if len(numbers) == 2:
                    cells.append(math.dist(numbers, wanted))
                scores["points within 2 cells"].append(len(numbers) == 2 and cells[-1] <= 2)
            else:
                scores[question].append(answer == truth)
        (asked, truth), *_ = reading_conversation(facts[row], rng)
        scores["questions about a face told in words"].append(
            greedy_answer(model, processor, asked, None) == truth
        )
    for name, event in situations(held_out=True):
        for subject in ("She", "He"):
            answer = greedy_answer(model, processor, f"{subject} {event}. How does this person feel?", None)
            scores["feeling of held-out situations"].append(f"feels {name}." in answer)
    figures = {
        name: {"accuracy": float(np.mean(values)), "n": len(values)}
        for name, values in sorted(scores.items())
    }
    return {**figures, "point error in cells": {"median": float(np.median(cells)), "n": len(cells)}}


def greedy_answer(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, question: str, features: Tensor | None
) -> str:
    """The greedy answer to one question, with the features of an image or none."""
    messages = to_messages([(question, "")], features is not None)[:1]
    ids = encode_prompt(messages, processor)
    start = len(ids)
    no_image = torch.zeros(0, 1, model.model.vision_tower.config.hidden_size)
    while len(ids) - start < 80:
        tokens = torch.tensor([ids])
        given = no_image if features is None else features
        state = language_states(model, tokens, torch.ones_like(tokens), given)[0, -1]
        ids.append(int(model.lm_head(state).argmax()))
        if ids[-1] == processor.tokenizer.eos_token_id:
            break
    return processor.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


def language_states(
    model: LlavaForConditionalGeneration, ids: Tensor, mask: Tensor, features: Tensor
) -> Tensor:
    """Last hidden states (N,T,H) of ids (N,T) whose image tokens take the projected features in order."""
    embeddings = model.get_input_embeddings()(ids)
    projected = model.model.multi_modal_projector(features.to(embeddings.dtype))
    where = (ids == model.config.image_token_index).unsqueeze(-1).expand_as(embeddings)
    embeddings = embeddings.masked_scatter(where, projected.to(embeddings.dtype))
    return model.model.language_model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
