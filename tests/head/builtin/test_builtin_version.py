"""The version name of the built-in head stands for one geometry: a sketch of it lies beside this file.

Processors round otherwise, by up to 1e-11 m; what anybody could see is 1e-4 m. The sketch is compared to
1e-6 m. When the head is changed on purpose, raise `BUILTIN_ID`, empty `BUILTIN_HASHES`, and draw
the new sketch:

    python tests/head/builtin/test_builtin_version.py
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facegpt.head.builtin import build_head
from facegpt.head.files.format import HeadData
from facegpt.head.head_id import BUILTIN_ID

SKETCH = Path(__file__).parent / f"{BUILTIN_ID}.json"
FREQUENCIES = (0.37, 1.1, 2.3)  # of the waves that arrays are summed with, in radians per row
TOLERANCE = 1e-6  # of the sums: metres, or parts of white; processors differ by 3e-8 at most
TEXELS = 1e-4  # of the mean texture: one texel by 1/255 is 4e-3, the last bits of all 196,608 are 3e-6
NAMES = ("shape_names", "expression_names", "albedo_names", "dense_names")
POINTS = ("landmark", "contour", "dense")
BASES = ("shape_basis", "expression_basis", "pose_basis", "texture_basis", "skinning_weights")


@pytest.fixture(scope="module")
def head() -> HeadData:
    return build_head()


def waves(rows: np.ndarray) -> np.ndarray:
    """Every column of (N,K) summed with three waves over the rows, as (3,K): each entry has its say."""
    return np.cos(np.outer(FREQUENCIES, np.arange(1, len(rows) + 1))) @ rows.astype(np.float64)


def sketch(head: HeadData) -> dict[str, np.ndarray]:
    """Sums over every array. Triangles count in any order, landmarks as points: only what can be seen."""
    sums = {}
    for name, array in head.arrays().items():
        if not name.endswith(("triangles", "barycentric")):
            sums[name] = waves(array.reshape(-1, array.shape[-1]) if name in BASES else array.reshape(-1, 1))
    for name in POINTS:
        corners = head.v_template[head.triangles[getattr(head, f"{name}_triangles")]]
        points = (corners * getattr(head, f"{name}_barycentric")[..., None]).sum(-2)
        sums[name] = waves(points.reshape(-1, 1))
    first = head.triangles.argmin(1)[:, None]
    corner = (first + np.arange(3)) % 3  # the smallest vertex first
    rows = np.concatenate([np.take_along_axis(t, corner, 1) for t in (head.triangles, head.uv_triangles)], 1)
    sums["triangles"] = waves(rows[np.lexsort(rows.T[::-1])])
    return sums


def differences(head: HeadData) -> list[str]:
    """The arrays that are not those of the stored sketch."""
    stored, now = json.loads(SKETCH.read_text()), sketch(head)
    different = [name for name in NAMES if getattr(head, name) != stored["names"][name]]
    assert stored["sums"].keys() == now.keys()
    for name, sums in now.items():
        was = np.array(stored["sums"][name])
        tolerance = TEXELS if name == "texture_mean" else TOLERANCE
        if was.shape != sums.shape or not np.allclose(sums, was, rtol=0, atol=tolerance):
            different.append(name)
    return different


def test_the_version_name_stands_for_this_geometry(head: HeadData) -> None:
    assert differences(head) == [], f"the head is no longer {BUILTIN_ID}: give it a new name (see above)"


def test_another_order_of_triangles_and_a_last_bit_are_the_same_head(head: HeadData) -> None:
    order = np.random.default_rng(0).permutation(len(head.triangles))
    place = np.argsort(order)
    moved = {f"{name}_triangles": place[getattr(head, f"{name}_triangles")] for name in POINTS}
    turned = replace(head, triangles=head.triangles[order], uv_triangles=head.uv_triangles[order], **moved)
    assert differences(turned) == []
    floats = {name: array for name, array in head.arrays().items() if array.dtype == np.float32}
    bits = {name: np.nextafter(floats[name], np.float32(1)) for name in floats if "weights" not in name}
    assert differences(replace(head, **bits)) == []


@pytest.mark.parametrize("group", ["shape", "expression", "albedo"])
def test_no_component_can_change_unseen(head: HeadData, group: str) -> None:
    name = "texture_basis" if group == "albedo" else f"{group}_basis"
    basis = getattr(head, name)
    for component in range(basis.shape[-1]):
        changed = basis[..., component] * 1.01
        was = json.loads(SKETCH.read_text())["sums"][name]
        seen = waves(changed.reshape(-1, 1))[:, 0] - np.array(was)[:, component]
        assert abs(seen).max() > TOLERANCE, component


def test_no_place_can_move_unseen(head: HeadData) -> None:
    for vertex in range(0, len(head.v_template), 97):
        moved = head.v_template.copy()
        moved[vertex] += 5e-5
        assert abs(waves(moved.reshape(-1, 1)) - waves(head.v_template.reshape(-1, 1))).max() > TOLERANCE
    weights = head.landmark_barycentric.copy()
    weights[30] = np.roll(weights[30], 1)
    assert differences(replace(head, landmark_barycentric=weights)) == ["landmark"]


if __name__ == "__main__":
    made = build_head()
    names = {name: getattr(made, name) for name in NAMES}
    sums = {name: np.round(value, 8).tolist() for name, value in sketch(made).items()}
    SKETCH.write_text(json.dumps({"names": names, "sums": sums}) + "\n")
    print(f"wrote {SKETCH}")
