"""python data_gen/instruct.py --out outputs/instruct.json [key=value ...]

Lets the untouched language model answer thousands of plain questions, so that training on faces keeps its own
way of talking. The questions come from the grammar in facegpt/data/wording/questions.yaml.

    OUT                 a JSON list in LLaVA's format, for data.instruct
    OUT as .about.json  seed, model, hash of the model's weights and the other settings, beside it

What is answered is written after every batch, and an interrupted run continues there; a file that was made
with other settings is refused. Questions of as many tokens are answered together: nothing is padded, because
padding changes what a small model in bfloat16 says.
"""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.conversation import encode_prompt
from facegpt.data.grammar import hasty, read_grammar
from facegpt.errors import ConfigError
from facegpt.files import read_json, write_json
from facegpt.machine import choose_device
from facegpt.model.backbone import load_backbone
from facegpt.sample import FACE_TOKEN, IMAGE_TOKEN, Message

HASTY = 0.15  # share of the questions without capital letters and marks


@dataclass
class InstructSettings:
    """out: the JSON file. backbone: "tiny", "small", a model directory or a model id; it is shown no image.
    count: questions. temperature: 0 takes the likeliest words. seed: of questions, and of words above 0.
    max_new_tokens: the longest answer, before it is cut to whole sentences. batch: questions at once.
    dtype: of the backbone; auto is bfloat16 where the device computes in it. device: auto is the GPU where
    there is one.
    """

    out: str = MISSING
    backbone: str = "tiny"
    count: int = 6000
    max_new_tokens: int = 60
    temperature: float = 0.0
    batch: int = 64
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        at_least(1, self, "count", "max_new_tokens", "batch")
        at_least(0, self, "temperature")


def main(argv: list[str]) -> None:
    settings = parse_config(InstructSettings, argv, __doc__)
    out = Path(settings.out)
    model, processor = load_backbone(settings.backbone, settings.dtype, choose_device(settings.device))
    questions = draw_questions(settings.count, settings.seed)
    rows = resume(out, questions, settings, weights_hash(model))
    with tqdm(total=len(questions), initial=len(rows), desc="instruct", unit="answer") as progress:
        for names in plan(questions, rows, settings, processor):
            texts = answer([questions[name] for name in names], model, processor, settings)
            for name, text in zip(names, texts, strict=True):
                turns = [{"from": "human", "value": questions[name]}, {"from": "gpt", "value": text}]
                if text:
                    rows[name] = {"id": name, "conversations": turns}
            write_json(out, [rows[name] for name in sorted(rows)])
            progress.update(len(names))
    print(f"{out}: {len(rows)} of {len(questions)} questions have an answer of at least one whole sentence")


def draw_questions(count: int, seed: int) -> dict[str, str]:
    """`count` different questions by their ids, the same for the same seed."""
    grammar, rng = read_grammar("questions"), random.Random(f"questions/{seed}")
    questions: dict[str, str] = {}
    while len(questions) < count:
        text = grammar.say(rng, "question")
        questions.setdefault(hasty(text), hasty(text) if rng.random() < HASTY else text)
    return {f"instruct-{index:05d}": text for index, text in enumerate(questions.values())}


def resume(
    out: Path, questions: dict[str, str], settings: InstructSettings, weights: str
) -> dict[str, dict[str, Any]]:
    """The rows that are there already, by id, once the note beside them says that they are of this run.

    Raises ConfigError when they were made with other settings, another model or other questions.
    """
    beside = out.with_suffix(".about.json")
    about = {key: value for key, value in asdict(settings).items() if key not in ("out", "batch", "device")}
    about["weights_sha256"] = weights
    about["questions_sha256"] = hashlib.sha256("\n".join(questions.values()).encode()).hexdigest()
    if not out.is_file():
        write_json(beside, about)
        return {}
    present = read_json(beside)
    for key, value in about.items():
        if not isinstance(present, dict) or present.get(key) != value:
            raise ConfigError(f"{out} was made with another {key}; remove it or choose another out")
    return {row["id"]: row for row in read_json(out)}


def weights_hash(model: Any) -> str:
    """SHA-256 of the language model's weights as they are computed with, in the order of their names."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.get_decoder().state_dict().items()):
        digest.update(name.encode() + weight.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def plan(
    questions: dict[str, str], done: dict[str, Any], settings: InstructSettings, processor: Any
) -> list[list[str]]:
    """Batches of ids of the questions without answer, each of questions that have as many tokens.

    Their order is drawn, so that what an interrupted run leaves is a sample of all.
    """
    lengths: defaultdict[int, list[str]] = defaultdict(list)
    for name, question in questions.items():
        if name not in done:
            lengths[len(encode_prompt([Message("user", question)], processor))].append(name)
    batches = [
        names[start : start + settings.batch]
        for names in lengths.values()
        for start in range(0, len(names), settings.batch)
    ]
    random.Random(settings.seed).shuffle(batches)
    return batches


@torch.no_grad()
def answer(questions: list[str], model: Any, processor: Any, settings: InstructSettings) -> list[str]:
    """The model's answers to questions of equally many tokens, in whole sentences; "" without any.

    At a temperature above 0 the words follow from the seed and the first question, whatever came before.
    """
    prompts = [encode_prompt([Message("user", question)], processor) for question in questions]
    ids = torch.tensor(prompts, device=model.device)
    torch.manual_seed(random.Random(f"{settings.seed}/{questions[0]}").getrandbits(60))
    sampling = {"do_sample": True, "temperature": settings.temperature} if settings.temperature > 0 else {}
    replies = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=settings.max_new_tokens,
        pad_token_id=processor.tokenizer.pad_token_id,
        **(sampling or {"do_sample": False}),
    )
    texts = processor.tokenizer.batch_decode(replies[:, ids.shape[1] :], skip_special_tokens=True)
    return [whole_sentences(text) for text in texts]


def whole_sentences(text: str) -> str:
    """The text up to the end of its last whole sentence, "" when it has none; line breaks stay as they are.

    The number of a list ("2.") ends no sentence.
    """
    for token in (IMAGE_TOKEN, FACE_TOKEN):
        text = text.replace(token, "")
    ends = [match.end() for match in re.finditer(r"[^\W\d][\"')*\]]*[.!?]+[\"')*]*(?=\s|$)", text)]
    number = re.search(r"\d[.!?]?$", text.strip()) if "\n" not in text.strip() else None
    if number:  # "7 plus 5 is 12."
        return text.strip()
    return text[: ends[-1]].strip() if ends else ""


if __name__ == "__main__":
    sys.exit(run(main))
