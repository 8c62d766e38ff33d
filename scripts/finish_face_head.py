"""Train the face head further behind a frozen language model: `python scripts/finish_face_head.py`.

The states that the trained language model has where it says `<FACE>` are computed once, for conversations
that ask for faces; the face head then learns from them for many more steps, each of which costs a
hundredth of one through the language model. A head that reads no text yet begins to. Faces asked for with a
photograph are compared with it by the objective of the training; faces that were only described, by their
parameters, because a description tells neither place nor light. These have no pictures: they are drawn and
told anew, as many as are wanted.

    WORK/states-*.safetensors   states, words, mean image tokens, true parameters and kind of faces; reused
    OUT                         the checkpoint with the new face head
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from facegpt.chat import answer, newest_checkpoint
from facegpt.config import MISSING, at_least, load_config, parse_config, run
from facegpt.data.collate import collate
from facegpt.data.records import read_records
from facegpt.data.sources import ImageToFace, Source, TextToFace
from facegpt.errors import SampleError
from facegpt.files import atomic_path
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective, parameter_error
from facegpt.losses.regularization import regularization
from facegpt.model.checkpoint import load_facegpt, read_description, save_checkpoint
from facegpt.model.face_head import FaceHead
from facegpt.model.facegpt import FaceGPT
from facegpt.model.text_reader import TextReader
from facegpt.model.tokens import face_positions
from facegpt.perception.recognizer import load_recognizer
from facegpt.render.renderer import render
from facegpt.sample import FACE_TOKEN, FaceTargets, Message, Sample
from facegpt.standins.rendered_faces import RenderedFaces, mean_tokens
from facegpt.standins.told_faces import told_faces
from facegpt.training.settings import TrainSettings

SMALLEST_TARGET = 32  # side in pixels of the targets that conversations carry along; only parameters are read
AT_ONCE = 200  # conversations of one file
LONGEST_ANSWER = 24  # tokens of the model's own


@dataclass
class FinishSettings:
    """checkpoint: a run or one of its checkpoints. out: folder of the new one. data: folder of the training
    faces. config: of the training, for objective and sources. work: folder of the states. faces: of
    `pretrain_face_reader.py`, whose pictures are shown as well (none: only those of data). part, parts: this
    process computes the states of part `part` of `parts` and stops there (parts 0: computes what is missing
    and trains). text_layer: of the language model, whose states the head reads as words. texts, photographs:
    conversations of each kind. own_words: whether the model itself answers the texts, not the
    templates. steps, lr: of the training. batch, told: faces of a step that were shown and
    that were described. held_out: faces for measuring only. seed: of faces and batches.
    """

    checkpoint: Path = MISSING
    out: Path = MISSING
    data: Path = Path("outputs/small/data")
    config: str = "configs/small/train.yaml"
    work: Path = Path("outputs/small/states")
    faces: Path | None = None
    part: int = 0
    parts: int = 0
    text_layer: int = 15
    texts: int = 20000
    photographs: int = 1200
    own_words: bool = False
    steps: int = 700
    batch: int = 32
    told: int = 128
    lr: float = 1e-3
    held_out: int = 1500
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "text_layer", "texts", "photographs", "steps", "batch", "told", "held_out")


def main(argv: list[str]) -> None:
    settings = parse_config(FinishSettings, argv, __doc__)
    torch.manual_seed(settings.seed)
    checkpoint, head = newest_checkpoint(settings.checkpoint), HeadModel.builtin()
    pieces = plan(settings)
    if missing := [piece for piece in pieces if not piece[0].exists()]:
        settings.work.mkdir(parents=True, exist_ok=True)
        speaker, _ = load_facegpt(checkpoint, head, merge=True)
        speaker.spec = replace(speaker.spec, head=replace(speaker.spec.head, text_layer=settings.text_layer))
        records = [read_records(settings.data / name) for name in ("train", "worn/train")]
        shown: list[Source] = [ImageToFace(found, SMALLEST_TARGET, settings.seed) for found in records]
        mine = missing if not settings.parts else missing[settings.part :: settings.parts]
        for path, kind, numbers in tqdm(mine, desc="states", unit="file"):
            sources = shown
            if kind == "text":
                told = told_faces(head, len(numbers), 1_000_000 * (settings.seed + 1) + numbers[0])
                sources = [TextToFace(told, SMALLEST_TARGET, settings.seed)]
            own_words = settings.own_words and kind == "text"
            compute(speaker, sources, path, kind, numbers, own_words)
    if settings.parts:
        return
    model, _ = load_facegpt(checkpoint, head)
    if model.spec.head.text_layer is None:
        let_it_read_text(model, settings.text_layer)
    stored = [load_file(path) for path, _, _ in pieces]
    faces = {name: torch.cat([piece[name] for piece in stored]) for name in stored[0]}
    faces["first"] = faces["length"].cumsum(0) - faces["length"]
    if settings.faces is not None:
        rendered = RenderedFaces(settings.faces)
        faces = with_rendered(faces, mean_tokens(model, rendered), rendered.parameters)
    train(model, head, faces, settings)
    save_checkpoint(model, settings.out, head.id, read_description(checkpoint).get("extra", {}))


def plan(settings: FinishSettings) -> list[tuple[Path, str, range]]:
    """Files of states, the kind of their conversations and the numbers of these."""
    counts = {"text": settings.texts, "photograph": settings.photographs}
    return [
        (
            settings.work / f"states-{kind}-{first:05d}.safetensors",
            kind,
            range(first, min(first + AT_ONCE, count)),
        )
        for kind, count in counts.items()
        for first in range(0, count, AT_ONCE)
    ]


@torch.no_grad()
def compute(
    model: FaceGPT, sources: list[Source], path: Path, kind: str, numbers: range, own_words: bool
) -> None:
    """Write the states of some conversations; those without a face are passed over."""
    samples: list[Sample] = []
    for number in numbers:
        source = sources[number % len(sources)]
        index = number // len(sources)
        sample = source.sample(index % len(source), 1000 + index // len(source))  # epochs not seen before
        samples += [sample] if sample.faces else []
    samples.sort(key=lambda sample: sum(len(message.text) for message in sample.messages))
    if own_words:
        samples = in_own_words(model, samples)
    names = ("states", "images", "words", "length", "truth")
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, len(samples), 8):
        batch = collate(samples[start : start + 8], model.processor)
        hidden = model.hidden_states(batch.input_ids, batch.attention_mask, batch.pixel_values)
        rows, columns = face_positions(batch.input_ids, model.face_token_id)
        if batch.faces is None or batch.faces.parameters is None:
            raise SampleError(f"{', '.join(batch.ids)}: the parameters are not known; take rendered faces")
        told = model.told_words(batch.input_ids, batch.attention_mask, rows, columns)
        assert hidden.words is not None  # as the spec asks for them
        found["states"].append(hidden.states[rows, columns].float())
        found["images"].append(model.image_context(batch.input_ids, hidden.images, rows, columns).float())
        found["words"].append(hidden.words[rows][told].bfloat16())  # of all faces, one after the other
        found["length"].append(told.sum(dim=1))
        found["truth"].append(batch.faces.parameters)
    joined = {name: torch.cat(parts).contiguous() for name, parts in found.items()}
    joined["shown"] = torch.full((len(joined["truth"]),), kind == "photograph")
    with atomic_path(path) as temporary:
        save_file(joined, temporary)


def in_own_words(model: FaceGPT, samples: list[Sample]) -> list[Sample]:
    """The same requests for one face each as the model itself answers them, where it answers with a face.

    The feeling that it names is not always the true one: a head that only knew answers with true ones would
    believe the word and not the description.
    """
    spoken = []
    for start in range(0, len(samples), 16):
        some = samples[start : start + 16]
        asked = [replace(sample, messages=sample.messages[:1], faces=[]) for sample in some]
        for sample, reply in zip(some, answer(model, asked, LONGEST_ANSWER), strict=True):
            if len(sample.messages) == 2 and len(sample.faces) == 1 == reply.text.count(FACE_TOKEN):
                sample = replace(sample, messages=[sample.messages[0], Message("assistant", reply.text)])
            spoken.append(sample)
    return spoken


def with_rendered(faces: dict[str, Tensor], images: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """More faces that were shown: other pictures, each under the words of some photograph of the data."""
    asked = torch.nonzero(faces["shown"])[:, 0]
    asked = asked[torch.randint(len(asked), (len(images),))]
    more = {"images": images, "truth": truth, "shown": torch.ones(len(images), dtype=torch.bool)}
    more |= {name: faces[name][asked] for name in ("states", "first", "length")}
    return {name: torch.cat([faces[name], more[name]]) if name in more else faces[name] for name in faces}


def read_by_the_head(faces: dict[str, Tensor], rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, images, words and which of the words count of some faces, as `FaceHead.forward` takes them."""
    first, length = faces["first"][rows, None], faces["length"][rows, None]
    place = torch.arange(int(length.max()))
    told = place < length
    words = faces["words"][(first + place).clamp(max=len(faces["words"]) - 1)]
    return faces["states"][rows], faces["images"][rows], words, told


def let_it_read_text(model: FaceGPT, layer: int) -> None:
    """Give the model a face head that reads text, too, and says the same as before until it learns."""
    old, spec = model.face_head.state_dict(), model.spec
    options = replace(spec.head, text_layer=layer)
    width, mean = len(old["network.0.weight"]), torch.tensor(spec.mean)
    new = FaceHead(width, spec.layout, mean, options.widths, options.scales, options.reads_image, True)
    state = new.state_dict()
    for name, weight in old.items():
        if state[name].shape != weight.shape:  # the first layer: what it sees of the text comes last
            weight = torch.cat([weight, torch.zeros(len(weight), TextReader.size)], dim=1)
        state[name] = weight
    new.load_state_dict(state)
    model.face_head, model.spec = new, replace(spec, head=options)


def train(model: FaceGPT, head: HeadModel, faces: dict[str, Tensor], settings: FinishSettings) -> None:
    """Train the face head, and say before and after what it is worth on faces that were held out."""
    training = load_config(TrainSettings, settings.config)
    recognizer = load_recognizer(training.model.recognizer)
    objective = FaceObjective(training.objective, recognizer, model.spec.layout)
    order = torch.randperm(len(faces["truth"]), generator=torch.Generator().manual_seed(settings.seed))
    held, learnt = order[: settings.held_out], order[settings.held_out :]
    shown = faces["shown"][learnt]
    kinds = ((learnt[shown], settings.batch), (learnt[~shown], settings.told))
    losses = FaceHeadLosses(model, head, objective, training.data.render_size)
    print(f"held-out faces before: {losses.said(faces, held)}")
    optimizer = torch.optim.AdamW(model.face_head.parameters(), lr=settings.lr, weight_decay=0.02)
    bar = tqdm(range(settings.steps), desc="face head", mininterval=5)
    for step in bar:
        rows = torch.cat([kind[torch.randint(len(kind), (count,))] for kind, count in kinds])
        compared, described = losses(faces, rows)
        loss = (compared.mean() + described.mean()) / 2
        for group in optimizer.param_groups:
            decay = 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
            group["lr"] = settings.lr * min(1.0, (step + 1) / 50) * decay
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.face_head.parameters(), training.optimization.clip)
        optimizer.step()
        if step % 300 == 299:
            bar.write(f"step {step + 1}: {losses.said(faces, held)}")


@dataclass
class FaceHeadLosses:
    """Losses of faces that were shown, by the whole objective, and of those only described."""

    model: FaceGPT
    head: HeadModel
    objective: FaceObjective
    size: int

    def __call__(self, faces: dict[str, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the shown (a,) and of the described faces (b,) of rows (a+b,)."""
        spoken = self.model.face_head.face_parameters(*read_by_the_head(faces, rows))
        truth, shown = faces["truth"][rows], faces["shown"][rows]
        weights = self.objective.weights
        described = weights.parameters * parameter_error(spoken[~shown], truth[~shown])
        described = described + weights.regularization * regularization(spoken[~shown])
        return self._compare(spoken[shown], truth[shown]), described

    def _compare(self, spoken: FaceParameters, truth: Tensor) -> Tensor:
        """Losses (a,) of spoken faces by the objective, against the true ones rendered."""
        if not len(truth):
            return truth.new_zeros(0)
        with torch.no_grad():
            seen = render(self.head, FaceParameters.from_vector(truth, self.model.spec.layout), self.size)
        targets = FaceTargets(seen.image.clamp(0, 1), seen.landmarks, seen.skin_mask, truth)
        return self.objective(render(self.head, spoken, self.size), spoken, targets)[0]

    @torch.no_grad()
    def said(self, faces: dict[str, Tensor], rows: Tensor) -> str:
        """Mean losses, and how far described expressions follow the truth: mean r of components that vary."""
        shown, described = self(faces, rows)
        told = rows[~faces["shown"][rows]]
        spoken = self.model.face_head.face_parameters(*read_by_the_head(faces, told)).expression
        truth = FaceParameters.from_vector(faces["truth"][told], self.model.spec.layout).expression
        moved, true = spoken - spoken.mean(0), truth - truth.mean(0)
        r = (moved * true).sum(0) / (moved.norm(dim=0) * true.norm(dim=0)).clamp(min=1e-9)
        return (
            f"shown {float(shown.mean()):.3f}, described {float(described.mean()):.3f}, "
            f"described expression r {float(r[truth.std(0) > 0.05].mean()):.3f}"
        )


if __name__ == "__main__":
    sys.exit(run(main))
