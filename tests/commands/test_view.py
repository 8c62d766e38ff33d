"""Contact sheets: what they show where, and what the command says when it cannot draw them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_head import small_head, small_head_data

from facegpt.commands import view
from facegpt.config import run
from facegpt.errors import ConfigError
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel


@pytest.fixture(scope="module")
def head_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("head") / "small.safetensors"
    save_head(small_head_data(), path)
    return path


def test_the_command_draws_the_wanted_parts_and_nothing_else(
    head_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "sheet.png"
    options = ["--head", str(head_file), "--parts", "albedo,crowd", "--size", "48", "--count", "4"]
    assert run(view.main, ["--sheet", str(out), *options]) == 0
    with Image.open(out) as page:
        assert page.format == "PNG"
        assert f"{page.width} x {page.height} pixels: albedo, crowd" in capsys.readouterr().out
    assert [p.name for p in out.parent.iterdir()] == ["sheet.png"]


def test_every_part_of_a_head_can_be_drawn() -> None:
    head = small_head()
    heights = [view.draw(head, [part], 48, count=2).height for part in view.PARTS]
    assert view.draw(head, view.PARTS[1:3], 48, count=2).height == sum(heights[1:3])


def test_component_pictures_show_both_ends_and_differ_where_the_component_acts() -> None:
    head = small_head()
    tiles = view.component_pictures(head, "albedo", ["one thing", "another"], (-2.0, 2.0), 48)
    assert len(tiles) == 2 and tiles[0].width == 96 and tiles[0].height > 48
    left, right = (np.asarray(tiles[0].crop(box), dtype=int) for box in ((0, 0, 48, 48), (48, 0, 96, 48)))
    changed = np.abs(left - right).max(-1) > 0
    assert changed.any() and not changed.all()
    neutral = view.component_pictures(head, "albedo", ["one thing"], (0.0, 0.0), 48)[0]
    mean = np.asarray(neutral.crop((0, 0, 48, 48)), dtype=int)
    assert np.abs((left + right) / 2 - mean)[changed].mean() < np.abs(left - right)[changed].mean()


def test_crowds_repeat_with_their_seed_and_show_different_people() -> None:
    head = small_head()
    first, again, other = (
        [np.asarray(p) for p in view.crowd_pictures(head, 48, 3, seed)] for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert not np.array_equal(first[0], first[1])
    assert view.training_pictures(head, 2, 0)[0].size == (112, 112)


@pytest.mark.parametrize(
    "text", ["jaw", "mouth lower down left", "a name that is much too long for its picture " * 3]
)
def test_captions_stay_legible_and_within_their_picture(text: str) -> None:
    tile = view.captioned([Image.new("RGB", (100, 80), "white")] * 2, text)
    ink = np.asarray(tile.convert("L"))[80:] < 128
    assert tile.size[0] == 200 and tile.size[1] > 88
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    assert len(rows) >= 5 and columns.min() > 0 and columns.max() < 199


def test_a_page_is_not_wider_than_wanted_and_keeps_every_picture() -> None:
    pictures = [Image.new("RGB", (150, 150), (index, 0, 0)) for index in range(1, 31)]
    sheet = view.section("Thirty", pictures)
    assert sheet.width <= view.WIDTH
    red = np.asarray(sheet)[..., 0][np.asarray(sheet)[..., 1] == 0]
    assert set(range(1, 31)) <= set(red.tolist())


def test_mistakes_are_answered_with_a_sentence(
    head_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "sheet.png")
    assert run(view.main, ["--sheet", out, "--head", str(tmp_path / "missing.npz")]) == 1
    assert "missing.npz" in capsys.readouterr().err
    for options, words in (
        (["--size", "5"], "size is 5"),
        (["--count", "0"], "count is 0"),
        (["--parts", "mean,nose"], "'nose' is not one of mean, identities"),
        (["--sheet", str(tmp_path / "sheet.doc")], "does not end in .png"),
    ):
        assert run(view.main, ["--sheet", out, "--head", str(head_file), *options]) == 2
        assert words in capsys.readouterr().err
    plain = HeadModel(replace(small_head_data(), texture_mean=None, texture_basis=None, albedo_names=[]))
    with pytest.raises(ConfigError, match="no albedo components; leave 'albedo' out"):
        view.draw(plain, ["albedo"], 48)
    assert list(tmp_path.iterdir()) == []
