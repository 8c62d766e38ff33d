"""python eval/noise.py out=FILE.json [key=value ...]

How far can the metrics of surfaces and matching be believed? True faces of the synthetic kind are perturbed
by a known distance and scored against themselves: which number does an error of 0.5, 1, 2 or 5 mm give, how
does the number after ICP follow the true error, and how much does matching among 16 and 64 depend on the draw
of the candidates and on the faces? No model is asked. Writes OUT and prints docs/metrics.md's tables.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from tqdm import tqdm

from facegpt.config import at_least, parse_config, run
from facegpt.evaluation.candidate_draws import share_of_wins
from facegpt.evaluation.matching import distances
from facegpt.evaluation.summary import summary
from facegpt.evaluation.surface_agreement import METRICS, face_surfaces, surface_errors
from facegpt.files import write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.machine import package_versions
from facegpt.metrics.surface import MILLIMETERS
from facegpt.standins.synthetic import sample_parameters

LEVELS = (0.5, 1.0, 2.0, 5.0)  # mean displacement of the face region's vertices, mm
KINDS = ("shape", "expression", "vertices")
DEFINITIONS = {
    "shape": "a random direction of all shape components, as long as it takes; expression likewise",
    "vertices": "every vertex on its own, an isotropic normal draw",
    "true_error_mm": "mean distance of corresponding vertices, nothing aligned: the level, by construction",
    "other_faces": "one person's true face as the prediction of another's: errors as models make them",
    "correlation": (
        "of true_error_mm with the number after ICP, over all faces, kinds and levels, and within a level, "
        "where lengths are drawn from half to one and a half of it"
    ),
    "matching": "truth perturbed in expression by the level, as the prediction, among other true faces",
    "no_better_than_chance": "predictions are other people's faces: how far chance goes, over sets of faces",
}


@dataclass
class NoiseSettings:
    """out: file for the results. n: how many faces are perturbed. matched: how many faces are matched.
    seeds: how many sets of faces chance is looked at with. head: "builtin" or a head file. seed: of all
    draws.
    """

    out: str = "outputs/demo/noise.json"
    n: int = 16
    matched: int = 96
    seeds: int = 5
    head: str = "builtin"
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(2, self, "n")
        at_least(64, self, "matched")
        at_least(1, self, "seeds")


def main(argv: list[str]) -> None:
    settings = parse_config(NoiseSettings, argv, __doc__)
    start = time.time()
    head = HeadModel.open(settings.head)
    rows = perturbed_errors(head, settings.n, settings.seed)
    others = other_faces(head, 2 * settings.n, settings.seed)
    result: dict[str, Any] = {
        "n": settings.n,
        "errors": error_table(rows, settings.seed),
        "other_faces": summaries(others, settings.seed),
        "correlation": {**correlations(rows), "other_faces": correlation(others)},
        "matching": matching_noise(head, settings.matched, settings.seed),
        "no_better_than_chance": chance_noise(head, settings.matched, settings.seeds, settings.seed),
        "definitions": DEFINITIONS,
        "command": shlex.join(["python", *sys.argv]),
        "settings": dict(vars(settings)),
        "head_id": head.id,
        "versions": package_versions(),
        "seconds": round(time.time() - start, 1),
    }
    write_json(settings.out, result)
    report(result)
    print(f"wrote {settings.out} ({result['seconds']} s)")


def perturbed_errors(head: HeadModel, count: int, seed: int) -> list[dict[str, Any]]:
    """Kind, level, true error and metrics of every perturbed face."""
    truth = sample_parameters(head, count, torch.Generator().manual_seed(seed))
    surfaces = face_surfaces(head, truth)
    generator = np.random.default_rng(seed)
    rows = []
    for kind in KINDS:
        for level in tqdm(LEVELS, desc=kind, unit="level"):
            lengths = level * generator.uniform(0.5, 1.5, count)
            moved = perturb(head, truth, surfaces.vertices, kind, lengths, generator)
            for face in range(count):
                true = surfaces.vertices[face]
                found = surface_errors(moved[face], true, surfaces.normals[face])
                error = MILLIMETERS * float(np.linalg.norm(moved[face] - true, axis=1).mean())
                rows.append({"kind": kind, "level": level, "true_error_mm": error, **found})
    return rows


def other_faces(head: HeadModel, count: int, seed: int) -> list[dict[str, Any]]:
    """True error and metrics of the face of one person as the prediction of another's."""
    surfaces = face_surfaces(head, sample_parameters(head, count + 1, torch.Generator().manual_seed(seed)))
    rows = []
    for face in tqdm(range(count), desc="other faces", unit="face"):
        other, true = surfaces.vertices[face + 1], surfaces.vertices[face]
        error = MILLIMETERS * float(np.linalg.norm(other - true, axis=1).mean())
        rows.append({"true_error_mm": error, **surface_errors(other, true, surfaces.normals[face])})
    return rows


def perturb(
    head: HeadModel,
    truth: FaceParameters,
    vertices: np.ndarray,
    kind: str,
    lengths: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Vertices (N,V,3) of N faces moved by a mean of `lengths` (N,) mm; see `DEFINITIONS`."""
    if kind == "vertices":
        moves = generator.normal(size=vertices.shape)
    else:
        own = getattr(truth, kind)
        step = torch.from_numpy(generator.normal(size=tuple(own.shape))).to(own)
        moves = face_surfaces(head, truth.replace(**{kind: own + step})).vertices - vertices
    # At a fixed jaw vertices move linearly with shape and expression, so a shortened move is one too.
    size = np.linalg.norm(moves, axis=2).mean(axis=1)
    return vertices + moves * (lengths / MILLIMETERS / size)[:, None, None]


def error_table(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """One row for each kind and level."""
    table = []
    for kind in KINDS:
        for level in LEVELS:
            some = [row for row in rows if (row["kind"], row["level"]) == (kind, level)]
            table.append({"kind": kind, "level_mm": level, **summaries(some, seed)})
    return table


def summaries(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Metric -> `summary`."""
    return {name: summary([row[name] for row in rows], seed) for name in ("true_error_mm", *METRICS)}


def correlation(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Pearson's and Spearman's of Chamfer distance and vertex error with the true error."""
    true = [row["true_error_mm"] for row in rows]
    found = {}
    for metric in ("chamfer_mm", "vertex_error_mm"):
        own = [row[metric] for row in rows]
        found[f"{metric}_pearson"] = float(pearsonr(true, own)[0])
        found[f"{metric}_spearman"] = float(spearmanr(true, own)[0])
    return found


def correlations(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`correlation` over all, by kind, and within kind and level: there the mean."""
    within = [
        correlation([row for row in rows if (row["kind"], row["level"]) == (kind, level)])
        for kind in ("shape", "expression")
        for level in LEVELS
    ]
    return {
        "all": correlation(rows),
        **{kind: correlation([row for row in rows if row["kind"] == kind]) for kind in KINDS},
        "within_a_level": {name: float(np.mean([row[name] for row in within])) for name in within[0]},
    }


def matching_noise(head: HeadModel, count: int, seed: int) -> dict[str, Any]:
    """Level -> candidates -> `share_of_wins` of true faces perturbed by it."""
    truth = sample_parameters(head, count, torch.Generator().manual_seed(seed))
    truth = truth.replace(shape=0 * truth.shape)  # expressions are matched, not people
    surfaces = torch.from_numpy(face_surfaces(head, truth).vertices)
    generator = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for level in LEVELS:
        lengths = np.full(count, level)
        moved = perturb(head, truth, surfaces.numpy(), "expression", lengths, generator)
        table = distances(torch.from_numpy(moved), surfaces)
        found[f"{level:g} mm"] = {str(k): share_of_wins(table, k, seed) for k in (16, 64)}
    return found


def chance_noise(head: HeadModel, count: int, seeds: int, seed: int) -> dict[str, Any]:
    """Candidates -> mean, lowest and highest share over sets of faces, when predictions are other faces."""
    shares: dict[int, list[float]] = {16: [], 64: []}
    for number in range(seeds):
        generator = torch.Generator().manual_seed(1000 * (seed + 1) + number)
        faces = sample_parameters(head, 2 * count, generator)
        surfaces = torch.from_numpy(face_surfaces(head, faces.replace(shape=0 * faces.shape)).vertices)
        table = distances(surfaces[:count], surfaces[count:])
        for candidates, found in shares.items():
            found.append(share_of_wins(table, candidates, seed)["share"])
    return {
        str(k): {
            "chance": 1 / k,
            "mean": float(np.mean(v)),
            "lowest": min(v),
            "highest": max(v),
            "sets": seeds,
        }
        for k, v in shares.items()
    }


def report(result: dict[str, Any]) -> None:
    """The tables as Markdown."""
    names = ("true_error_mm", "vertex_error_mm", "chamfer_mm", "complete_rate")
    print(
        "| perturbed | by, mm | true error | after the best rigid motion | Chamfer after ICP | complete "
        "rate, % |"
    )
    print("|---|---|---|---|---|---|")
    for row in result["errors"]:
        cells = " | ".join(f"{row[name]['mean']:.2f}" for name in names)
        print(f"| {row['kind']} | {row['level_mm']:g} | {cells} |")
    cells = " | ".join(f"{result['other_faces'][name]['mean']:.2f}" for name in names)
    print(f"| another face | | {cells} |")
    print(
        "\n| correlation with the true error | vertex error, r | Chamfer, r | Chamfer, rank "
        "|\n|---|---|---|---|"
    )
    for name, row in result["correlation"].items():
        values = [
            row[f"{m}"] for m in ("vertex_error_mm_pearson", "chamfer_mm_pearson", "chamfer_mm_spearman")
        ]
        print(f"| {name.replace('_', ' ')} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    print(
        "\n| truth perturbed in expression by | right among 16, % (draws) | among 64, % (draws) "
        "|\n|---|---|---|"
    )
    for name, row in result["matching"].items():
        print(f"| {name} | " + " | ".join(_draws(found) for found in row.values()) + " |")
    shares = [
        f"{100 * found['mean']:.1f} ({100 * found['lowest']:.1f} to {100 * found['highest']:.1f})"
        for found in result["no_better_than_chance"].values()
    ]
    print(f"| other people's faces, {result['settings']['seeds']} sets | " + " | ".join(shares) + " |")


def _draws(found: dict[str, Any]) -> str:
    lowest, highest = 100 * found["lowest_draw"], 100 * found["highest_draw"]
    return f"{100 * found['share']:.1f} ({lowest:.1f} to {highest:.1f})"


if __name__ == "__main__":
    sys.exit(run(main))
