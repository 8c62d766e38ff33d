"""Is the own one the nearest among K? The same question over many draws of the other K - 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from facegpt.evaluation.matching import draw_candidates, ranks
from facegpt.metrics.agreement import bootstrap

DRAWS = 20
DEFINITION = (
    f"mean over {DRAWS} draws of the other candidates; 95 % interval from 1,000 resamplings of the faces, "
    "each with its share of won draws; lowest and highest: of the single draws"
)


def share_of_wins(table: Tensor, candidates: int, seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """How often each of N queries is nearest to its own of K candidates, over several draws of the others.

    table (N,N): distance of query i to the truth of face j. A tie is a miss. With fewer than `candidates`
    faces all of them are candidates. Returns share, its 95 % interval, chance 1/K, factor over chance with
    its interval, and the lowest and highest share of a draw.
    """
    count = min(candidates, len(table))
    won = torch.stack(
        [ranks(table, draw_candidates(len(table), seed + draw, count)) == 1 for draw in range(draws)]
    ).double()  # (draws, N)
    by_face, by_draw = won.mean(dim=0), won.mean(dim=1)
    found = bootstrap(lambda rows: by_face[rows].mean()[None], len(table), seed)[0]
    return {
        "share": found.value,
        "interval_95": [found.low, found.high],
        "candidates": count,
        "chance": 1 / count,
        "factor_over_chance": count * found.value,
        "factor_interval_95": [count * found.low, count * found.high],
        "lowest_draw": float(by_draw.min()),
        "highest_draw": float(by_draw.max()),
    }
