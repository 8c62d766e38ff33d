"""A model card, made from what a run left: its description, its settings, its metrics, and evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from facegpt.config_values import Loader
from facegpt.errors import SampleError
from facegpt.files import read_json, read_jsonl
from facegpt.head.head_id import is_builtin_id
from facegpt.model.checkpoint import INSIDE, read_description
from facegpt.model.facegpt import FaceGPT
from facegpt.parts import PARTS, SMALL

METRICS, CONFIG = "metrics.jsonl", "config.yaml"
LARGEST_RESULT = 1 << 26  # bytes
FRONT = """---
library_name: facegpt
pipeline_tag: image-text-to-text
tags: [3d, face, vision-language]
license: other
license_name: see-the-parts-below
---
"""
INTRODUCTION = (
    "A vision-language model that speaks in 3D faces: each `<FACE>` of a reply stands for the parameters of "
    "a head model."
)
USE = """```python
from facegpt import ChatSession, FaceGPT, HeadModel, export_mesh

model, head = FaceGPT.from_pretrained("OWNER/NAME", head="{head}"), HeadModel.open("{head}")
turn = ChatSession(model).say("Show me the face of a man who laughs out loud.")
export_mesh(head.mesh(turn.faces[0]), "face.glb")
```"""


def model_card(
    model: FaceGPT, head_id: str, checkpoint: Path | None = None, results: Sequence[str | Path] = ()
) -> str:
    """Markdown, with the front matter that the hub reads.

    checkpoint: where the model comes from; the settings and metrics of its run are looked up there. results:
    JSON files of the evaluation recipes. Raises SampleError for one that cannot be read.
    """
    description = {} if checkpoint is None else read_description(checkpoint)
    settings = {} if checkpoint is None else _settings(checkpoint)
    backbone = str(description.get("backbone", model.spec.backbone))  # a loaded model has the folder instead
    head = "builtin" if is_builtin_id(head_id) else "HEAD FILE"
    numbers = _table(("measure", "model", "beside it", "n", "of"), _numbers(results))
    licences = _table(("part", "licence"), _licences(backbone, head_id, settings))
    sections = {
        "Use": USE.format(head=head),
        "Model": _bullets(_facts(model, backbone, head_id, description)),
        "Data": _bullets(_data(settings)) or "The run's settings do not lie beside this checkpoint.",
        "Losses": _bullets(_losses(settings, checkpoint)) or "The run's metrics do not lie beside it either.",
        "Numbers": numbers or "None were given; `eval/` has the recipes that measure.",
        "Licences": f"{licences}\n\nNo head model and no part of one is in these files.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{FRONT}\n# FaceGPT\n\n{INTRODUCTION}\n\n{body}\n"


def run_file(checkpoint: Path, name: str) -> Path | None:
    """A file of the run: beside the weights, or in the run's folder two above a checkpoint."""
    places = [checkpoint / name]
    if checkpoint.parent.name == "checkpoints":
        places.append(checkpoint.parents[1] / name)
    return next((place for place in places if place.is_file()), None)


def _settings(checkpoint: Path) -> dict[str, Any]:
    file = run_file(checkpoint, CONFIG)
    if file is None:
        return {}
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise SampleError(f"{file} is not readable YAML: {' '.join(str(error).split())}") from None
    return values if isinstance(values, dict) else {}


def _facts(model: FaceGPT, backbone: str, head_id: str, description: dict[str, Any]) -> dict[str, str]:
    spec, trained = model.spec, "face head"
    groups = ", ".join(f"{name} {size}" for name, size in spec.layout.sizes.items())
    if spec.lora is not None:
        trained += f", the rows of `<FACE>`, LoRA of rank {spec.lora.rank}"
    extra = description.get("extra") or {}
    versions = description.get("versions") or {}
    return {
        "head model": f"`{head_id}`; the parameters mean nothing to another head",
        "face parameters": f"{spec.layout.total}: {groups}",
        "backbone": "in this folder" if backbone == INSIDE else f"`{backbone}`, not in this folder",
        "trained": trained,
        **{key: str(value) for key, value in extra.items() if isinstance(value, int | float | str)},
        "made with": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }


def _data(settings: dict[str, Any]) -> dict[str, str]:
    sources = _below(settings, "data", "sources")
    return {
        name: f"{source.get('kind', 'of unknown kind')}, weight {source.get('weight', 1)}"
        for name, source in sources.items()
        if isinstance(source, dict)
    }  # without paths: they are of its maker's machine


def _losses(settings: dict[str, Any], checkpoint: Path | None) -> dict[str, str]:
    weights = _below(settings, "objective")
    lines = {"weights": ", ".join(f"{name} {value}" for name, value in weights.items())} if weights else {}
    file = None if checkpoint is None else run_file(checkpoint, METRICS)
    rows = [] if file is None else read_jsonl(file)
    for kind, wanted in (("train", ("loss", "face/")), ("validation", ("",))):
        last: dict[str, Any] = next((row for row in reversed(rows) if row.get("kind") == kind), {})
        values = [
            f"{key} {value:.4g}"
            for key, value in last.items()
            if key.startswith(wanted) and key not in ("kind", "step") and isinstance(value, int | float)
        ]
        if values:
            lines[f"{kind}, step {last.get('step')}"] = ", ".join(values)
    return lines


def _numbers(results: Sequence[str | Path]) -> Iterator[tuple[str, ...]]:
    """A row for every measure of the results that has a value of the model."""
    for file in results:
        content = read_json(file, LARGEST_RESULT)
        for measure, values in content.items() if isinstance(content, dict) else ():
            if not isinstance(values, dict) or not isinstance(values.get("model"), int | float):
                continue
            interval = _below(values, "interval_95").get("model")
            spread = "" if not interval else f" [{interval[0]:.4g}, {interval[1]:.4g}]"
            others = [
                f"{name} {value:.4g}"
                for name, value in values.items()
                if name not in ("model", "n") and isinstance(value, int | float)
            ]
            number = str(values.get("n", content.get("n", "")))
            yield measure, f"{values['model']:.4g}{spread}", ", ".join(others), number, Path(file).stem


def _licences(backbone: str, head_id: str, settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "facegpt, and the weights trained with it", "MIT"
    if backbone == "small":
        yield from ((f"backbone: {PARTS[name].purpose}", PARTS[name].license) for name in SMALL)
    elif backbone == "tiny":
        yield "backbone: the tiny LLaVA, made by code of facegpt", "MIT"
    else:
        yield "backbone", "its maker's" if backbone == INSIDE else f"that of `{backbone}`"
    if is_builtin_id(head_id):
        yield "head model: the built-in one, made by code of facegpt", "MIT"
    else:
        yield f"head model `{head_id}`", "its maker's (FLAME: non-commercial, but for 2023 Open)"
    recognizer = str(_below(settings, "model").get("recognizer") or "null")
    if recognizer != "null":
        known = PARTS[recognizer].license if recognizer in PARTS else "its maker's"
        license = "MIT" if recognizer == "tiny" else known
        yield f"recogniser in the training, `{Path(recognizer).name}`; not in this folder", license


def _below(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The mapping under some keys; an empty one where there is none."""
    for key in keys:
        inner = values.get(key)
        values = inner if isinstance(inner, dict) else {}
    return values


def _bullets(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in facts.items() if text)


def _table(titles: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *lines]) if lines else ""
