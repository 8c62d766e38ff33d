"""Pretrain the tiny recogniser, the stand-in for ArcFace: `python scripts/pretrain_tiny_recognizer.py`.

1. Render identities of the built-in head: random shape and albedo, each in several poses, expressions and
   lights, half as photographs before a background and half on black, as the perceptual loss shows them. Half
   of the identities come in groups with one albedo, so that skin colour alone cannot tell faces apart.
2. Train the network of `facegpt/perception/tiny_network.py` with the ArcFace loss (Deng et al. 2019, eq. 3).
   The centre of an identity is not learned on its own but computed from its shape and albedo by a small
   network, thrown away afterwards: what one identity teaches holds for its neighbours too.
3. Measure on identities that were never trained on; write weights (float16) and figures into `out`.

Everything is seeded; the rendered faces are cached under `work`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from facegpt.config import parse_config, run
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.perception.align import align_face
from facegpt.perception.tiny_network import FEATURES, TinyNetwork
from facegpt.render.renderer import render
from facegpt.standins.synthetic import background, photograph, sample_parameters

GROUP = 16  # training identities that share an albedo


@dataclass
class RecognizerSettings:
    """out: folder for weights and figures. work: folder of what is cached between runs. seed: of everything.
    threads: of torch. identities: faces to train on. views: of a training identity, alternately on black and
    before a background. held_out, held_out_views: identities to measure on, and their views.
    size: of the rendered image, before alignment. landmark_noise: of the size, about what a detector does
    (1 px at 224). steps, batch, lr: of the training. scale: of the cosines, ArcFace's s. margin: radians,
    reached by a linear ramp over the first half.
    """

    out: str = "facegpt/assets"
    work: str = "outputs/pretrain_recognizer"
    seed: int = 0
    threads: int = 1
    identities: int = 2048
    views: int = 4
    held_out: int = 64
    held_out_views: int = 8
    size: int = 112
    landmark_noise: float = 0.004
    steps: int = 800
    batch: int = 64
    lr: float = 2e-3
    scale: float = 24.0
    margin: float = 0.3


@dataclass
class Faces:
    """Aligned and halved faces: images (N,3,56,56) uint8, identity (N,) int64, coefficients (I,S+A).

    The views of an identity follow each other; its coefficients are its shape and albedo.
    """

    images: Tensor
    identity: Tensor
    coefficients: Tensor

    def floats(self, rows: Tensor) -> Tensor:
        """Network input in [-1,1]."""
        return self.images[rows].float() / 127.5 - 1


def main(settings: RecognizerSettings) -> None:
    torch.set_num_threads(settings.threads)
    figures = pretrain(HeadModel.builtin(), settings)
    print(json.dumps(figures, indent=2))


def pretrain(head: HeadModel, settings: RecognizerSettings) -> dict[str, float]:
    """All three stages; returns the figures that are written beside the weights."""
    torch.manual_seed(settings.seed)
    work, out = Path(settings.work), Path(settings.out)
    started = time.process_time()
    identities, views = training_identities(head, settings), settings.held_out_views
    faces = cached_faces(work / "train", head, *identities, settings.views, settings.seed, settings)
    tests = {
        name: cached_faces(work / name, head, *identities, views, settings.seed + 1, settings)
        for name, identities in held_out_identities(head, settings).items()
    }
    rendered = time.process_time()
    network = train(faces, settings)
    trained = time.process_time()
    network.fold()
    half = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    network.load_state_dict(half)  # measure what is shipped
    figures = {
        f"{name}: {key}": value
        for name, test in tests.items()
        for key, value in measure(network, test).items()
    }
    with atomic_path(out / "tiny_recognizer.safetensors") as temporary:
        save_file(half, temporary, metadata={"made_by": "scripts/pretrain_tiny_recognizer.py"})
    facts = {
        "head_id": head.id,
        "render_cpu_seconds": round(rendered - started),
        "train_cpu_seconds": round(trained - rendered),
    }
    settings_kept = {k: v for k, v in asdict(settings).items() if k not in ("out", "work")}
    write_json(out / "tiny_recognizer.json", {"settings": settings_kept, **facts, **figures})
    return figures


def training_identities(head: HeadModel, settings: RecognizerSettings) -> tuple[Tensor, Tensor]:
    """Shapes (I,S) and albedos (I,A); from the second half on, groups of identities share their albedo."""
    generator = torch.Generator().manual_seed(settings.seed)
    parameters = sample_parameters(head, settings.identities, generator)
    albedo, half = parameters.albedo.clone(), settings.identities // 2
    albedo[half:] = albedo[half::GROUP].repeat_interleave(GROUP, dim=0)[: settings.identities - half]
    return parameters.shape, albedo


def held_out_identities(head: HeadModel, settings: RecognizerSettings) -> dict[str, tuple[Tensor, Tensor]]:
    """Three tests: identities that differ in everything, in shape alone, in albedo alone."""
    generator = torch.Generator().manual_seed(settings.seed + 1)
    parameters = sample_parameters(head, settings.held_out, generator)
    shape, albedo = parameters.shape, parameters.albedo
    return {
        "shape and albedo": (shape, albedo),
        "shape alone": (shape, albedo[:1].repeat(len(albedo), 1)),
        "albedo alone": (shape[:1].repeat(len(shape), 1), albedo),
    }


def cached_faces(
    path: Path,
    head: HeadModel,
    shape: Tensor,
    albedo: Tensor,
    views: int,
    seed: int,
    settings: RecognizerSettings,
) -> Faces:
    """Render every identity `views` times, or read what an earlier run rendered with the same settings."""
    keys = (head.id, seed, len(shape), views, settings.size, settings.landmark_noise)
    file = path.with_name("-".join([path.name.replace(" ", "-"), *map(str, keys)]) + ".safetensors")
    if not file.exists():
        rows = torch.arange(len(shape)).repeat_interleave(views)
        images = render_faces(head, shape[rows], albedo[rows], seed, settings)
        with atomic_path(file) as temporary:
            save_file({"images": images, "identity": rows, "shape": shape, "albedo": albedo}, temporary)
    stored = load_file(file)
    return Faces(stored["images"], stored["identity"], torch.cat([stored["shape"], stored["albedo"]], dim=1))


@torch.no_grad()
def render_faces(
    head: HeadModel, shape: Tensor, albedo: Tensor, seed: int, settings: RecognizerSettings
) -> Tensor:
    """Aligned faces (N,3,56,56) uint8 of shapes (N,S) and albedos (N,A), otherwise random.

    Every second one has a background, the others are on black.
    """
    generator = torch.Generator().manual_seed(seed)
    images = []
    pairs = list(zip(shape.split(32), albedo.split(32), strict=True))
    for shapes, albedos in tqdm(pairs, desc="render", disable=None):
        count = len(shapes)
        parameters = sample_parameters(head, count, generator).replace(shape=shapes, albedo=albedos)
        rendering = render(head, parameters, settings.size)
        backdrop = torch.zeros_like(rendering.image)
        backdrop[1::2] = background(count // 2, settings.size, generator)
        image = photograph(rendering, backdrop, generator)
        noise = settings.landmark_noise * settings.size * torch.randn(count, 68, 2, generator=generator)
        aligned = F.avg_pool2d(align_face(image, rendering.landmarks + noise), 2)
        images.append((255 * aligned.clamp(0, 1)).round().byte())
    return torch.cat(images)


def train(faces: Faces, settings: RecognizerSettings) -> TinyNetwork:
    """ArcFace: cosines to a centre per identity, the true one's angle made harder by the margin."""
    network = TinyNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    centers = nn.Sequential(nn.Linear(faces.coefficients.shape[1], 256), nn.GELU(), nn.Linear(256, FEATURES))
    parameters = [*network.parameters(), *centers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, settings.steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.empty(0, dtype=torch.long)
    bar = tqdm(range(settings.steps), desc="train", disable=None)
    for step in bar:
        while len(order) < settings.batch:
            order = torch.cat([order, torch.randperm(len(faces.images), generator=generator)])
        rows, order = order[: settings.batch], order[settings.batch :]
        features = F.normalize(network.embed(augment(faces.floats(rows), generator)), dim=1)
        cosines = features @ F.normalize(centers(faces.coefficients), dim=1).T
        margin = settings.margin * min(1.0, 2 * step / settings.steps)
        loss = arcface_loss(cosines, faces.identity[rows], settings.scale, margin)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step + 1 == settings.steps:
            right = (cosines.argmax(1) == faces.identity[rows]).float().mean()
            bar.write(f"step {step} loss {loss.item():.3f} training accuracy {right.item():.2f}")
    return network.eval()


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Exposure, white balance and noise of a camera, on (B,3,56,56) in [-1,1]."""
    gain = 1 + 0.08 * torch.randn(len(images), 1, 1, 1, generator=generator)
    tint = 1 + 0.03 * torch.randn(len(images), 3, 1, 1, generator=generator)
    noise = 0.02 * torch.randn(images.shape, generator=generator)
    return ((images + 1) * gain * tint - 1 + noise).clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def arcface_loss(cosines: Tensor, identity: Tensor, scale: float, margin: float) -> Tensor:
    """Softmax cross entropy of scale * cos(angle), with `margin` added to the true identity's angle.

    cosines (B,I): of features and identities' centres; identity (B,) int64. Deng et al. 2019, eq. 3.
    """
    true = cosines.gather(1, identity[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
    harder = torch.cos((torch.acos(true) + margin).clamp(max=math.pi))
    return F.cross_entropy(scale * cosines.scatter(1, identity[:, None], harder), identity)


@torch.no_grad()
def measure(network: TinyNetwork, faces: Faces) -> dict[str, float]:
    """Verification and identification on unseen identities, in percent.

    AUC: two pictures of one face are more alike than two of different faces. rank-1: the nearest of one
    gallery picture per identity is the right one; the gallery shows renderings, the probes are all others.
    pixel rank-1: the same with raw pixels instead of features, what has to be beaten.
    """
    images = faces.floats(torch.arange(len(faces.images)))
    features = torch.cat([F.normalize(network.embed(part), dim=1) for part in images.split(256)])
    gallery = torch.cat([torch.tensor([True]), faces.identity[1:] != faces.identity[:-1]])
    likeness = features @ features.T
    same = faces.identity[:, None] == faces.identity[None, :]
    pairs = torch.triu(torch.ones_like(same), diagonal=1)
    pixels = F.normalize(images.flatten(1) - images.flatten(1).mean(0), dim=1)
    return {
        "AUC": 100 * auc(likeness[same & pairs], likeness[~same & pairs]),
        "rank-1": rank_one(likeness, gallery, faces.identity),
        "pixel rank-1": rank_one(pixels @ pixels.T, gallery, faces.identity),
        "mean cosine of one face": likeness[same & pairs].mean().item(),
        "mean cosine of two faces": likeness[~same & pairs].mean().item(),
    }


def rank_one(likeness: Tensor, gallery: Tensor, identity: Tensor) -> float:
    """Percent of the others whose nearest picture in the gallery is of the same identity.

    likeness (N,N), gallery (N,) bool, identity (N,) int64.
    """
    nearest = identity[gallery][likeness[~gallery][:, gallery].argmax(dim=1)]
    return 100 * (nearest == identity[~gallery]).double().mean().item()


def auc(positive: Tensor, negative: Tensor) -> float:
    """Probability that a positive value exceeds a negative one (Mann-Whitney), ties counting half."""
    negative = negative.sort().values
    below = torch.searchsorted(negative, positive.contiguous(), right=False)
    up_to = torch.searchsorted(negative, positive.contiguous(), right=True)
    return ((below + up_to).double() / 2).mean().item() / len(negative)


if __name__ == "__main__":
    sys.exit(run(lambda argv: main(parse_config(RecognizerSettings, argv, __doc__))))
