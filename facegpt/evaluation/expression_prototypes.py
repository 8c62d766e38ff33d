"""Which of seven feelings does a generated face show? The nearest of seven prototype expressions.

The prototypes are the archetypes of the synthetic faces (`facegpt.standins.synthetic.ARCHETYPES`) at the
strength that their faces have on average; happiness is half smile, half laugh, and neutral is the face at
rest. A face and a prototype are compared in the named components that some prototype moves, each the mean of
its two sides, and in the opening of the jaw.

Why Euclidean distance and not the cosine: a cosine would judge a trace of a smile, which nobody sees, like a
broad one, and knows no neutral face. Why no division by each component's spread: all components already have
one unit (0 absent, 1 full; the jaw's is `FULL_JAW`), a spread would have to come from some set of faces, and
it would make the rarest movement weigh most. Nothing here was fitted to a model's answers.

Shape legend: N faces, D compared components, 7 feelings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from facegpt.errors import HeadMismatchError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.face_token_rates import wilson_interval
from facegpt.standins.synthetic import ARCHETYPES, SHOWN_BY

# The archetypes whose mean is the prototype of a feeling.
PROTOTYPES: dict[str, tuple[str, ...]] = {**SHOWN_BY, "neutral": ()}
FEELINGS = tuple(PROTOTYPES)
STRENGTH = 0.675  # synthetic faces wear an archetype at 0.25 to 1.1 of its shares
JAW, FULL_JAW = "jaw", 0.4  # radians: the widest that an archetype opens it
COMPONENTS = (
    *dict.fromkeys(part for names in PROTOTYPES.values() for name in names for part in ARCHETYPES[name][0]),
    JAW,
)


def prototypes() -> Tensor:
    """(7,D) in the order of `FEELINGS` and `COMPONENTS`; the jaw's opening in units of `FULL_JAW`."""
    table = torch.zeros(len(FEELINGS), len(COMPONENTS))
    for row, names in enumerate(PROTOTYPES.values()):
        for name in names:
            parts, (low, high) = ARCHETYPES[name]
            for part, share in {**parts, JAW: (low + high) / 2 / FULL_JAW}.items():
                table[row, COMPONENTS.index(part)] += STRENGTH * share / len(names)
    return table


def compared_components(head: HeadModel, faces: FaceParameters) -> Tensor:
    """What is compared with `prototypes`, (N,D): named components, both sides' mean, and the jaw's opening.

    Raises HeadMismatchError for a head whose expression components do not have these names.
    """
    columns = []
    for part in COMPONENTS[:-1]:
        sides = [index for index, name in enumerate(head.expression_names) if _stem(name) == part.lower()]
        if not sides:
            raise HeadMismatchError(
                f"the head has no expression component {part}, so feelings cannot be told; "
                "use a head with ARKit's names"
            )
        columns.append(faces.expression[:, sides].mean(1))
    return torch.stack([*columns, faces.pose[:, 3] / FULL_JAW], 1).float().cpu()


def knows_feelings(head: HeadModel) -> bool:
    """Whether the head names all components that the prototypes move."""
    stems = {_stem(name) for name in head.expression_names}
    return stems >= {part.lower() for part in COMPONENTS[:-1]}


def nearest_feelings(components: Tensor) -> list[str]:
    """The feeling of the nearest prototype for each row of `compared_components`, (N,D)."""
    return [FEELINGS[i] for i in torch.cdist(components, prototypes()).argmin(1).tolist()]


@dataclass
class FeelingScore:
    """How often the shown feeling is one of the right ones; shares in [0,1].

    with_face: requests that got a face. right: those whose nearest prototype is a right one. chance: of a
    face that shows one of the seven by lot. shuffled: faces scored with the feelings of another request, mean
    over all others. confusion: right feeling -> shown feeling (or "no face") -> count; a request with
    several right ones counts under each.
    """

    n: int
    with_face: int
    right: int
    chance: float
    shuffled: float | None
    confusion: dict[str, dict[str, int]]

    def as_json(self) -> dict[str, Any]:
        """Shares among the requests with a face and among all, with Wilson's 95 % intervals."""
        return {
            "n": self.n,
            "with_face": self.with_face,
            "right": self.right,
            "share_of_faces": self.right / self.with_face if self.with_face else None,
            "interval_of_faces": wilson_interval(self.right, self.with_face),
            "share_of_all": self.right / self.n,
            "interval_of_all": wilson_interval(self.right, self.n),
            "chance": self.chance,
            "shuffled": self.shuffled,
            "confusion": self.confusion,
        }


def score_feelings(shown: Sequence[str | None], right: Sequence[Sequence[str]]) -> FeelingScore:
    """Compare shown feelings (None: no face came) with the right ones of each request, at least one request.

    Raises ValueError when the lengths differ or nothing is given.
    """
    pairs = list(zip(shown, right, strict=True))
    if not pairs:
        raise ValueError("feelings need at least one request to be scored")
    faces = [(face, feelings) for face, feelings in pairs if face is not None]
    own = sum(face in feelings for face, feelings in faces)
    every = sum(face in feelings for face, _ in faces for _, feelings in faces)  # all shifts, and their own
    others = len(faces) * (len(faces) - 1)
    confusion = {feeling: dict.fromkeys([*FEELINGS, "no face"], 0) for feeling in FEELINGS}
    for face, feelings in pairs:
        for feeling in feelings:
            confusion[feeling][face or "no face"] += 1
    return FeelingScore(
        n=len(pairs),
        with_face=len(faces),
        right=own,
        chance=sum(len(set(feelings)) for feelings in right) / len(FEELINGS) / len(pairs),
        shuffled=(every - own) / others if others else None,
        confusion=confusion,
    )


def _stem(name: str) -> str:
    """mouthSmileLeft, mouthSmile_L -> mouthsmile."""
    stem = name.removesuffix("_L").removesuffix("_R").removesuffix("Left").removesuffix("Right")
    return stem.replace("_", "").lower()
