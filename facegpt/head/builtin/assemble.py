"""All parts of the head as one mesh in millimetres, with the part of every vertex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from facegpt.head.builtin import ears, eyes, mouth, nostrils
from facegpt.head.builtin.grids import Grid
from facegpt.head.builtin.surface import SkinField
from facegpt.head.builtin.template import SkinMesh, build_skin

Array = np.ndarray

MIRROR_X = np.array([-1.0, 1.0, 1.0])


@dataclass
class HeadMesh:
    """The mean head.

    vertices (V,3) in mm.  triangles (F,3): counter-clockwise from outside.
    parts: name -> vertex ids; a vertex on the rim of an opening belongs to "skin".
    grids: name -> Grid.  skin: the skin's own mesh, whose ids are the head's first.
    mirror (V,): id of the mirror image.  triangle_part (F,): name of the part each triangle belongs to.
    """

    vertices: Array
    triangles: Array
    parts: dict[str, Array]
    grids: dict[str, Grid]
    skin: SkinMesh
    mirror: Array
    triangle_part: Array


def assemble() -> HeadMesh:
    """Build every part and join them."""
    surface = SkinField()
    skin = build_skin(surface)
    left_rim = skin.eye_loop
    seat = eyes.seat_rim(skin.vertices[left_rim]) - skin.vertices[left_rim]
    for ring, share in zip(skin.eye_rings, (1.0, 0.6, 0.25), strict=False):
        skin.vertices[ring] += share * seat
        skin.vertices[skin.mirror[ring]] = skin.vertices[ring] * MIRROR_X

    blocks, parts, grids = [skin.vertices], {"skin": np.arange(len(skin.vertices))}, {}
    size = len(skin.vertices)

    def add(name: str, points: Array, into: str | None = None) -> Array:
        """Append points (..., 3) and return their ids in the same arrangement."""
        nonlocal size
        ids = size + np.arange(points[..., 0].size).reshape(points.shape[:-1])
        blocks.append(points.reshape(-1, 3))
        parts[into or name] = np.concatenate([parts.get(into or name, ids[:0].ravel()), ids.ravel()])
        size += ids.size
        return ids

    inner = eyes.inner_lids(skin.vertices[left_rim])
    ball, front, back = eyes.eyeball()
    ear, canal = ears.ear(surface)
    tube, tube_end = nostrils.tube(skin.vertices[skin.nostril_loop])
    for side, sign in (("left", np.ones(3)), ("right", MIRROR_X)):
        flip = side == "right"
        rim = skin.mirror[left_rim] if flip else left_rim
        ids = np.concatenate([rim[None], add(f"{side}_inner_lids", inner * sign)])
        grids[f"{side}_inner_lids"] = Grid(ids, closed=True, flip=not flip)
        ids = add(f"{side}_eyeball", ball * sign)
        poles = add(f"{side}_eyeball", np.stack([front, back]) * sign)
        grids[f"{side}_eyeball"] = Grid(ids, closed=True, first=int(poles[0]), last=int(poles[1]), flip=flip)
        for name, left_loop, rings, end in (
            ("ear", skin.ear_loop, ear, canal),
            ("nostril", skin.nostril_loop, tube, tube_end),
        ):
            loop = skin.mirror[left_loop] if flip else left_loop
            ids, pole = add(f"{side}_{name}", rings * sign), add(f"{side}_{name}", end[None] * sign)
            ids = np.concatenate([loop[None], ids])
            grids[f"{side}_{name}"] = Grid(ids, closed=True, last=int(pole[0]), flip=not flip)

    rings, end = mouth.cavity(skin.vertices[skin.mouth_loop])
    ids, pole = add("cavity", rings), add("cavity", end[None])
    grids["cavity"] = Grid(np.concatenate([skin.mouth_loop[None], ids]), closed=True, last=int(pole[0]))
    for name, upper in (("upper_teeth", True), ("lower_teeth", False)):
        grids[name] = Grid(add(name, mouth.teeth(upper)))
    rings, tip, root = mouth.tongue()
    ids, poles = add("tongue", rings), add("tongue", np.stack([tip, root]))
    grids["tongue"] = Grid(ids, closed=True, first=int(poles[0]), last=int(poles[1]))

    vertices = np.concatenate(blocks)
    pieces = [skin.triangles] + [grid.triangles() for grid in grids.values()]
    labels = [np.full(len(p), n) for p, n in zip(pieces, ["skin", *grids], strict=True)]
    return HeadMesh(
        vertices,
        np.concatenate(pieces),
        parts,
        grids,
        skin,
        _mirror_map(vertices, parts),
        np.concatenate(labels),
    )


def _mirror_map(vertices: Array, parts: dict[str, Array]) -> Array:
    """Id of every vertex's mirror image, found part by part."""
    mirror = np.arange(len(vertices))
    for name, ids in parts.items():
        twin = name.replace("left", "#").replace("right", "left").replace("#", "right")
        distance, nearest = cKDTree(vertices[parts[twin]]).query(vertices[ids] * MIRROR_X)
        assert distance.max() < 1e-6, name
        mirror[ids] = parts[twin][nearest]
    return mirror
