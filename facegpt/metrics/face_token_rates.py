"""Does the model say `<FACE>` when it should, and only then?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class FaceTokenRates:
    """Percentages; NaN where no answer of that kind was asked for.

    recall: wanted faces that came. false_positive_rate: answers that should hold no face and hold one.
    """

    recall: float
    false_positive_rate: float


def face_token_rates(wanted: Sequence[int], emitted: Sequence[int]) -> FaceTokenRates:
    """Compare the number of faces per answer with the number wanted there.

    In an answer that wants n faces, at most n of the emitted ones count as found; surplus faces there are not
    false positives. Raises ValueError when the lengths differ.
    """
    pairs = list(zip(wanted, emitted, strict=True))
    total, found = sum(wanted), sum(min(w, e) for w, e in pairs)
    silent = [e for w, e in pairs if w == 0]
    return FaceTokenRates(
        recall=100 * found / total if total else math.nan,
        false_positive_rate=100 * sum(e > 0 for e in silent) / len(silent) if silent else math.nan,
    )


def wilson_interval(found: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of a share `found` of `count`, by default at 95 %; (0, 1) when nothing was counted.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927): unlike the normal
    one it stays within [0,1] and has a width at 0 and at all. Raises ValueError unless 0 <= found <= count.
    """
    if not 0 <= found <= count:
        raise ValueError(f"{found} of {count} is no share")
    if count == 0:
        return 0.0, 1.0
    share, weight = found / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
