"""python eval/language.py --checkpoint RUN --out FILE.json [key=value ...]

Has a trained model kept the language that its backbone brought? Asks both the same questions, which want
words and no face: the model as it was trained, and the same with its adapter switched off, which is the
untouched backbone. How many greedy answers are equal, and how likely does the trained model find the
untouched one's answers? Writes OUT, with all answers.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from facegpt.chat import check_text, question
from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.collate import collate_prompts
from facegpt.errors import CheckpointError, SampleError
from facegpt.evaluation.evaluated_model import (
    face_counts,
    open_evaluated_model,
    provenance,
    replies_to,
)
from facegpt.evaluation.request_sets import SPLITS, read_requests
from facegpt.files import read_jsonl, write_json
from facegpt.metrics.face_token_rates import wilson_interval
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import Reply
from facegpt.sample import Sample

DATA = Path(__file__).parent / "data"
DEFINITIONS = {
    "untouched": "the same model with its adapter and the trained rows of the vocabulary switched off",
    "equal_answers": "greedy answers that are the untouched model's to the letter; 95 % interval of Wilson",
    "perplexity": (
        "exp of the mean negative log-likelihood of the untouched model's own greedy answers, over all their "
        "tokens, end tokens included, teacher forced under both models"
    ),
    "relative_change": "perplexity of the trained model over that of the untouched one, less 1",
    "with_face": "answers of the trained model that hold a <FACE>",
}


@dataclass
class LanguageSettings:
    """checkpoint: a run or one of its checkpoints, with its adapter (a merged one has none to switch off).
    requests: a request set whose plain questions are asked. split: of these, dev or test. general: JSON lines
    of id and text, general questions. n: how many questions of each file (0: all). out: file for the results.
    head: "builtin" or the head file used in training. backbone: where it lies, if it has moved. device: auto
    is the GPU where there is one. batch: conversations at once. max_new_tokens: the longest answer. seed: is
    noted, nothing is drawn.
    """

    checkpoint: str = MISSING
    requests: str = str(DATA / "requests.jsonl")
    split: str = "test"
    general: str = str(DATA / "general.jsonl")
    out: str = "outputs/demo/language.json"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    n: int = 0
    batch: int = 16
    max_new_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens")
        at_least(0, self, "n")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, it is {self.split}")


def main(argv: list[str]) -> None:
    settings = parse_config(LanguageSettings, argv, __doc__)
    start = time.time()
    samples = plain_questions(settings)
    evaluated = open_evaluated_model(
        settings.checkpoint, settings.head, settings.backbone, settings.device, merge=False
    )
    model, adapter = evaluated.model, evaluated.model.backbone
    if not isinstance(adapter, PeftModel):
        raise CheckpointError(
            f"{evaluated.checkpoint} is merged, so the untouched backbone cannot be told from it; "
            "give the checkpoint of the training run"
        )

    trained = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, "trained")
    with adapter.disable_adapter():
        untouched = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, "untouched")
        losses = {"untouched": answer_losses(model, samples, untouched, settings.batch)}
    losses["trained"] = answer_losses(model, samples, untouched, settings.batch)

    perplexity = {name: math.exp(float(torch.cat(parts).mean())) for name, parts in losses.items()}
    equal = [ours.text == theirs.text for ours, theirs in zip(trained, untouched, strict=True)]
    result: dict[str, Any] = {
        "n": len(samples),
        "tokens": sum(len(part) for part in losses["untouched"]),
        "equal_answers": {
            "count": sum(equal),
            "share": sum(equal) / len(equal),
            "interval": wilson_interval(sum(equal), len(equal)),
        },
        "perplexity": perplexity,
        "relative_change": perplexity["trained"] / perplexity["untouched"] - 1,
        "with_face": sum(count > 0 for count in face_counts(trained)),
        "definitions": DEFINITIONS,
        **provenance(evaluated, settings),
        "seconds": round(time.time() - start, 1),
        "replies": [
            {"id": sample.id, "text": sample.messages[0].text, "trained": ours.text, "untouched": theirs.text}
            for sample, ours, theirs in zip(samples, trained, untouched, strict=True)
        ],
    }
    write_json(settings.out, result)
    print(f"equal answers: {sum(equal)} of {len(equal)}; with a face: {result['with_face']}")
    print(
        f"perplexity of the untouched answers: {perplexity['untouched']:.3f} untouched, "
        f"{perplexity['trained']:.3f} trained ({result['relative_change']:+.1%})"
    )
    print(f"wrote {settings.out} ({result['seconds']} s)")


def plain_questions(settings: LanguageSettings) -> list[Sample]:
    """The questions of both files. Raises SampleError, naming file and row, for what is none."""
    asked = [r for r in read_requests(settings.requests, settings.split) if r.kind == "question"]
    samples = [question(r.text, None, r.id) for r in asked[: settings.n or None]]
    for number, row in enumerate(read_jsonl(settings.general)[: settings.n or None], start=1):
        if not isinstance(row.get("id"), str) or not isinstance(row.get("text"), str):
            raise SampleError(f'row {number} of {settings.general} is not of the form {{"id", "text"}}')
        check_text(row["text"])
        samples.append(question(row["text"], None, row["id"]))
    if not samples:
        raise SampleError(f"neither {settings.requests} nor {settings.general} holds a plain question")
    return samples


@torch.no_grad()
def answer_losses(
    model: FaceGPT, samples: Sequence[Sample], replies: Sequence[Reply], batch: int
) -> list[Tensor]:
    """Negative log-likelihood (L,) float64 of the tokens of each reply after its prompt, in nats."""
    losses = []
    for start in range(0, len(samples), batch):
        prompts = collate_prompts(samples[start : start + batch], model.processor).to(model.device)
        answers = [reply.ids.to(model.device) for reply in replies[start : start + batch]]
        # Prompts are padded on the left, so all answers begin in one column; they are padded on the right.
        padded = pad_sequence(answers, batch_first=True, padding_value=model.processor.tokenizer.pad_token_id)
        attention = pad_sequence([torch.ones_like(ids) for ids in answers], batch_first=True)
        hidden = model.hidden_states(
            torch.cat([prompts.input_ids, padded], 1),
            torch.cat([prompts.attention_mask, attention], 1),
            prompts.pixel_values,
        )
        first = prompts.input_ids.shape[1] - 1  # the state that predicts the first token of an answer
        for states, ids in zip(hidden.states, answers, strict=True):
            logits = model.vlm.get_output_embeddings()(states[first : first + len(ids)])
            losses.append(F.cross_entropy(logits.double(), ids, reduction="none").cpu())
    return losses


if __name__ == "__main__":
    sys.exit(run(main))
