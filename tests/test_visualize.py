"""Pictures: what is drawn where, in pixels that can be computed by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_head import small_head

from facegpt.errors import RenderingError
from facegpt.visualize import (
    BACKGROUND,
    INK,
    contact_sheet,
    dialogue_sheet,
    draw_landmarks,
    head_picture,
    overlay,
    to_pil,
)


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def test_to_pil_rounds_and_clamps() -> None:
    image = torch.tensor([-0.5, 0.0, 0.501, 1.0, 7.0]).reshape(1, 1, 5).expand(3, 2, 5)
    picture = to_pil(image.requires_grad_())
    assert picture.size == (5, 2)
    assert array(picture)[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(ValueError, match=r"\(3, H, W\)"):
        to_pil(torch.zeros(1, 3, 4, 4))


def test_head_picture_shows_a_head_before_the_background() -> None:
    head = small_head()
    picture = head_picture(head, head.mean_parameters(), 64)
    pixels = array(picture)
    assert picture.size == (64, 64)
    corner = np.array(BACKGROUND) * 255
    assert np.abs(pixels[0, 0] - corner).max() <= 1
    assert np.abs(pixels[32, 32] - corner).max() > 40
    # drawn to the edge below (the neck) and with air above
    assert np.abs(pixels[0] - corner).max() <= 1
    assert np.abs(pixels[-1, 32] - pixels[-1, 0]).max() > 20


def test_head_picture_ignores_camera_and_lighting_but_not_shape() -> None:
    head = small_head()
    mean = head.mean_parameters()
    picture = array(head_picture(head, mean, 32))
    other = mean.replace(camera=mean.camera * 0.3 + 0.1, lighting=mean.lighting * 0)
    assert np.array_equal(array(head_picture(head, other, 32)), picture)
    broad = mean.replace(shape=mean.shape + 2)
    assert not np.array_equal(array(head_picture(head, broad, 32)), picture)


def test_clay_shows_geometry_only() -> None:
    head = small_head()
    mean = head.mean_parameters()
    dark = mean.replace(albedo=mean.albedo - 3)
    assert not np.array_equal(array(head_picture(head, dark, 32)), array(head_picture(head, mean, 32)))
    clay = array(head_picture(head, mean, 32, clay=True))
    assert np.array_equal(array(head_picture(head, dark, 32, clay=True)), clay)


def test_yaw_turns_the_nose_to_the_subjects_left() -> None:
    """The texture's dark eyes are on the front; turned by 0.5 they move to the image's right."""
    head = small_head()
    light = array(head_picture(head, head.mean_parameters(), 96)).sum(axis=2)
    turned = array(head_picture(head, head.mean_parameters(), 96, yaw=0.5)).sum(axis=2)

    def dark_column(pixels: np.ndarray) -> float:
        middle = pixels[20:60, 20:76]  # the region of the eyes, without the outline of the head
        columns = np.nonzero(middle < np.quantile(middle, 0.03))[1]
        return float(columns.mean())

    assert dark_column(turned) > dark_column(light) + 5


def test_head_picture_of_several_faces_is_refused() -> None:
    head = small_head()
    with pytest.raises(ValueError, match="one face, got 2"):
        head_picture(head, head.mean_parameters(2), 16)


def test_head_picture_of_numbers_that_are_none_is_refused() -> None:
    mean = small_head().mean_parameters()
    mean.albedo[0, 0] = float("nan")
    with pytest.raises(RenderingError, match=r"face 0 of the batch of 1 has face parameters \(albedo\)"):
        head_picture(small_head(), mean, 16)


def test_overlay_mixes_inside_the_mask_only() -> None:
    photo, rendering = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    assert array(overlay(photo, rendering, mask, 0.4))[..., 1].tolist() == [[102, 0], [51, 102]]


def test_landmarks_are_dots_centered_on_their_pixels() -> None:
    picture = Image.new("RGB", (40, 30))
    drawn = array(draw_landmarks(picture, torch.tensor([[10.5, 20.5], [31.0, 6.0]]), (200, 100, 50)))
    assert drawn[20, 10].tolist() == [200, 100, 50]
    rows, columns = np.indices(drawn.shape[:2]) + 0.5
    for x, y, near in ((10.5, 20.5, columns < 20), (31.0, 6.0, columns > 20)):
        weight = drawn[..., 0] * near
        assert abs((weight * columns).sum() / weight.sum() - x) < 0.15
        assert abs((weight * rows).sum() / weight.sum() - y) < 0.15
    assert not np.asarray(picture).any()  # the original stays


def test_contact_sheet_places_pictures_in_a_table() -> None:
    red, green = Image.new("RGB", (40, 30), (255, 0, 0)), torch.tensor([0.0, 1.0, 0.0]).expand(20, 20, 3)
    sheet = array(contact_sheet([[red, green.permute(2, 0, 1)], [None, red]]))
    assert sheet.shape == (6 + 2 * 36, 6 + 2 * 46, 3)
    assert (sheet[6:36, 6:46] == [255, 0, 0]).all()
    assert (sheet[11:31, 62:82] == [0, 255, 0]).all()  # smaller, so centred in its cell
    assert (sheet[42:72, 52:92] == [255, 0, 0]).all()
    assert (sheet[42:72, 6:46] == 255).all()
    assert (sheet[:6] == 255).all() and (sheet[:, -6:] == 255).all()


def test_titles_stay_inside_their_margins() -> None:
    tile = Image.new("RGB", (80, 80), (0, 0, 255))
    titles = ["short", "a title of several words that needs lines"]
    sheet = array(contact_sheet([[tile, tile]] * 2, titles))
    blue = (sheet == [0, 0, 255]).all(axis=2)
    rows, columns = np.flatnonzero(blue.any(axis=1)), np.flatnonzero(blue.any(axis=0))
    assert blue.sum() == 4 * 80 * 80  # no letter on a picture
    ink = (np.abs(sheet - np.array(INK)).max(axis=2) < 40) & ~blue
    assert ink[: rows[0], columns[0] :].any()
    assert not ink[:, -1].any() and not ink[0].any() and not ink[:, 0].any() and not ink[-1].any()
    assert not ink[rows[0] :].any()


def test_contact_sheet_refuses_what_does_not_fit() -> None:
    tile = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([[None]])
    with pytest.raises(ValueError, match="1 titles were given for 2 columns"):
        contact_sheet([[tile, tile]], ["one"])


def test_a_dialogue_has_its_words_between_the_picture_and_the_face() -> None:
    red, blue = Image.new("RGB", (30, 30), "red"), Image.new("RGB", (90, 90), "blue")
    pixels = array(
        dialogue_sheet([("Who is it?", "This one.", red, blue), ("Why?", "Because.", None, None)], 64)
    )
    width, gap = pixels.shape[1], 4
    assert width == 4 * 64 + 4 * gap and pixels.shape[0] == 2 * 64 + 3 * gap
    first, second = pixels[gap : gap + 64], pixels[2 * gap + 64 : 2 * gap + 128]
    assert (first[:, gap : gap + 64] == (255, 0, 0)).all() and (
        first[:, -gap - 64 : -gap] == (0, 0, 255)
    ).all()
    assert (second[:, : gap + 64] == 255).all() and (second[:, -gap - 64 :] == 255).all()
    for row in (first, second):
        words = row[:, 64 + 2 * gap : -64 - 2 * gap]
        orange = words[..., 0] - words[..., 2]  # ANSWER is, INK is not
        asked, answered = (words.mean(axis=-1) < 160) & (orange < 20), orange > 50
        assert asked.any(axis=1).nonzero()[0].max() < answered.any(axis=1).nonzero()[0].min()


def test_long_words_make_their_row_of_a_dialogue_taller() -> None:
    long = "a long answer that goes on and on " * 20
    assert dialogue_sheet([("Why?", long, None, None)], 64).height > 2 * 64
    with pytest.raises(ValueError, match="at least one exchange"):
        dialogue_sheet([])
