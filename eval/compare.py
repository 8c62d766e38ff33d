"""python eval/compare.py --data FACES --out FILE.json predictions=A.json,B.npz,FOLDER [key=value ...]

Compares methods on the same face records, face by face: results of eval/reconstruct.py, and predictions of
anybody: an .npz with `ids` and `codes` (DECA's 236 numbers in its order) or a folder with one .json, .npz or
.obj per record (facegpt/evaluation/predictions.py). Landmark and photometric error, and where the truth is
known vertex errors in mm per region, aligned and not, and identity; with paired tests between all methods,
the mean face among them. Writes OUT, one line per face in `..._samples.jsonl`, and a page to look at, .html.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.held_out import true_parameters
from facegpt.data.records import read_records
from facegpt.errors import ConfigError, SampleError
from facegpt.evaluation.comparison import DEFINITIONS, metric_table, numbers_of, paired_table
from facegpt.evaluation.comparison_page import comparison_page
from facegpt.evaluation.evaluated_model import samples_path, write_rows
from facegpt.evaluation.predictions import Predictions, read_predictions
from facegpt.evaluation.report_sections import Painter
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.machine import choose_device, package_versions
from facegpt.perception.recognizer import load_recognizer

MEAN_FACE = "mean face"


@dataclass
class CompareSettings:
    """data: face records. predictions: files or folders of predictions, one per method. names: what the
    methods are called, in the same order (empty: the names of the files). out: file for the results. head:
    "builtin" or the head file that the predictions are for. recognizer: "tiny" or the file of a recogniser,
    which compares identities. n: the first so many records (0: all). size: side of the comparison in pixels.
    faces: how many faces the page shows, those on which the first two methods differ most. device: auto is
    the GPU where there is one. seed: of the resampling.
    """

    data: str = MISSING
    predictions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    out: str = "outputs/compare.json"
    head: str = "builtin"
    recognizer: str = "tiny"
    n: int = 0
    size: int = 224
    faces: int = 6
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "n", "faces")
        at_least(1, self, "size")
        if not self.predictions:
            raise ValueError("predictions must name one file or folder or more")
        if self.names and len(self.names) != len(self.predictions):
            raise ValueError(f"there are {len(self.names)} names for {len(self.predictions)} predictions")


def main(argv: list[str]) -> None:
    settings = parse_config(CompareSettings, argv, __doc__)
    start = time.time()
    names = settings.names or [Path(path).stem for path in settings.predictions]
    if len({*names, MEAN_FACE}) <= len(names):
        raise ConfigError(f"the methods {', '.join(names)} need names that differ; give names=A,B")
    head = HeadModel.open(settings.head).to(choose_device(settings.device))
    recognizer = load_recognizer(settings.recognizer).to(head.v_template.device)
    data = read_records(settings.data)
    methods = {n: read_predictions(p, head) for n, p in zip(names, settings.predictions, strict=True)}
    wanted = data.ids[: settings.n or None]
    common = set.intersection(*(set(method.ids) for method in methods.values()))
    ids = [name for name in wanted if name in common]
    if not ids:
        raise SampleError(f"no record of {settings.data} has predictions by all methods; ids must be its own")
    place = {name: index for index, name in enumerate(data.ids)}
    records = [data[place[name]] for name in ids]
    truth = true_parameters(records, data, head)

    chosen = {name: method.of(ids) for name, method in methods.items()}
    chosen[MEAN_FACE] = Predictions(ids, head.mean_parameters(len(ids)).to("cpu"))
    numbers = {
        name: numbers_of(method, records, truth, head, recognizer, settings.size)
        for name, method in chosen.items()
    }
    result: dict[str, Any] = {
        "n": len(ids),
        "methods": {
            name: {"predictions": path, "missing": len(set(wanted) - set(methods[name].ids))}
            for name, path in zip(names, settings.predictions, strict=True)
        },
        "metrics": metric_table(numbers, settings.seed),
        "paired": paired_table(numbers, settings.seed),
        "definitions": DEFINITIONS,
        "data": settings.data,
        "head_id": head.id,
        "command": shlex.join(["python", *sys.argv]),
        "settings": dict(vars(settings)),
        "versions": package_versions(),
        "seconds": round(time.time() - start, 1),
    }
    out = Path(settings.out)
    write_rows(samples_path(out), sample_rows(ids, numbers))
    write_json(out, result)
    page = comparison_page(result, numbers, records, chosen, Painter(head, settings.size), settings.faces)
    with atomic_path(out.with_suffix(".html")) as temporary:
        temporary.write_text(page, encoding="utf-8")
    for metric, row in result["metrics"].items():
        print(f"{metric}: " + ", ".join(f"{name} {found['mean']:.3f}" for name, found in row.items()))
    print(f"wrote {out} and {out.with_suffix('.html')} ({len(ids)} faces, {result['seconds']} s)")


def sample_rows(ids: Sequence[str], numbers: dict[str, dict[str, Tensor]]) -> list[dict[str, Any]]:
    """One row per face: metric -> method -> number."""
    rows: list[dict[str, Any]] = [{"id": name} for name in ids]
    for method, metrics in numbers.items():
        for metric, values in metrics.items():
            for row, value in zip(rows, values.tolist(), strict=True):
                row.setdefault(metric, {})[method] = value
    return rows


if __name__ == "__main__":
    sys.exit(run(main))
