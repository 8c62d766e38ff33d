"""The image augmentations of the tiny LLaVA's pretraining: facts must follow the picture."""

from __future__ import annotations

from dataclasses import fields

import torch

from facegpt.standins.augmentation import fact_vector, mirror_facts, move_facts, move_images
from facegpt.standins.language import GRID, POINTS, Facts

SIZE = 112


def facts_with(points, **values):
    """Facts that are zero but for `points` and `values`."""
    empty = {"points": points, "light": (0.0, 0.0, 0.0), "shape": {}, "colors": {}, "movements": {}}
    numbers = {f.name: 0.0 for f in fields(Facts) if f.name not in empty}
    return Facts(**{**numbers, **empty, **values})


def dot(cell):
    """An image that is black but for the pixels of one grid cell (column, row)."""
    image = torch.zeros(3, GRID, GRID)
    image[:, cell[1], cell[0]] = 1
    return image.repeat_interleave(SIZE // GRID, 1).repeat_interleave(SIZE // GRID, 2)


def test_points_move_with_the_image():
    size = GRID * (SIZE // GRID)  # whole cells
    points = {name: (6 + i % 20, 9 + i % 13) for i, name in enumerate(POINTS)}
    vector = torch.tensor([fact_vector(facts_with(points, yaw=0.3))])
    step = size // GRID
    moves = torch.tensor([[2 * step, -step]])  # two cells to the right, one up
    for i, (column, row) in enumerate(points.values()):
        moved = move_images(dot((column, row))[None], moves)[0]
        assert torch.equal(moved, dot((column + 2, row - 1)))
        expected = {**points, list(points)[i]: (column + 2, row - 1)}
        wanted = torch.tensor([fact_vector(facts_with(expected, yaw=0.3))])
        changed = move_facts(vector, moves, size)
        assert torch.allclose(changed[0, 2 * i : 2 * i + 2], wanted[0, 2 * i : 2 * i + 2])
    assert torch.equal(changed[:, 2 * len(POINTS) :], vector[:, 2 * len(POINTS) :])


def test_a_moved_image_repeats_its_border():
    image = torch.rand(1, 3, 16, 16)
    moved = move_images(image, torch.tensor([[3, 0]]))
    assert torch.equal(moved[..., 3:], image[..., :-3])
    assert torch.equal(moved[..., :3], image[..., :1].expand(-1, -1, -1, 3))


def test_the_mirrored_facts_of_mirrored_facts_are_the_facts():
    points = {name: (i % GRID, (3 * i) % GRID) for i, name in enumerate(POINTS)}
    facts = facts_with(points, yaw=0.2, roll=-0.1, light=(0.3, 0.1, 0.9), movements={})
    mirrored = mirror_facts(facts)
    assert mirrored.points["the left eye"][0] == GRID - 1 - points["the right eye"][0]
    assert mirrored.yaw == -0.2 and mirrored.light[0] == -0.3
    assert mirror_facts(mirrored) == facts
