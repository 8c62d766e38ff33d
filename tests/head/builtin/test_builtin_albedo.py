"""The built-in head's colours: bounds, plausible skin, hair where it grows, components that mean their names.

Texels are looked up by their place on the head, so another unwrapping changes nothing here.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from facegpt.head.builtin.albedo import masks, mean_texture, texture_basis
from facegpt.head.builtin.assemble import assemble
from facegpt.head.builtin.canvas import Canvas, canvas, volume_noise
from facegpt.head.builtin.hair import border_depth
from facegpt.head.builtin.unwrap import texel_triangles, unwrap

KEPT_NAMES = {
    "melanin", "haemoglobin", "yellowness", "hair_lightness", "hair_redness", "hair_greyness", "lip_colour",
    "lip_lightness", "brow_darkness", "beard", "moustache", "hair_line", "scalp_hair_density",
    "iris_lightness", "iris_blueness", "iris_greenness", "sclera_brightness", "under_eye_circles",
    "cheek_blush", "freckles", "age_spots", "teeth_whiteness",
}  # fmt: skip


@dataclass
class Painted:
    c: Canvas
    masks: dict[str, np.ndarray]
    mean: np.ndarray  # (H, W, 3)
    basis: np.ndarray  # (H, W, 3, 50)
    names: list[str]
    used: np.ndarray  # (H, W): texels that some triangle shows

    def component(self, name: str) -> np.ndarray:
        part: np.ndarray = self.basis[..., self.names.index(name)]
        return part

    def near(self, x: float, y: float, reach: float) -> np.ndarray:
        """Skin texels on the front within `reach` mm of (+-x, y)."""
        close = np.hypot(self.c.ax - x, self.c.y - y) < reach
        return close & (self.c.z > 30) & (self.c.on("skin") > 0) & self.used


@pytest.fixture(scope="module")
def painted() -> Painted:
    head = assemble()
    uv, uv_triangles = unwrap(head)
    c = canvas(head, uv, uv_triangles)
    where = masks(c)
    basis, names = texture_basis(c, where)
    used = texel_triangles(uv, uv_triangles, len(c.points))[0] >= 0
    return Painted(c, where, mean_texture(c, where), basis, names, used)


def lab(color: np.ndarray) -> np.ndarray:
    """CIELAB (..., 3) under D65 of sRGB-coded colours, by the standard's formulas (IEC 61966-2-1, CIE 15)."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(matrix).T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def test_the_mean_is_a_color_and_random_faces_are_hardly_clamped(painted: Painted) -> None:
    assert painted.mean.min() >= 0 and painted.mean.max() <= 1
    two = painted.mean[..., None] + 2 * np.stack([painted.basis, -painted.basis])
    assert ((two < 0) | (two > 1))[:, painted.used].mean() < 0.005
    generator = np.random.default_rng(0)
    faces = painted.mean + np.moveaxis(painted.basis @ generator.normal(size=(50, 64)), -1, 0)
    outside = ((faces < 0) | (faces > 1))[:, painted.used]
    assert outside.mean() < 0.03


def test_names_are_unique_and_those_that_texts_use_stay(painted: Painted) -> None:
    assert painted.basis.shape == (*painted.mean.shape, 50)
    assert len(set(painted.names)) == 50
    assert set(painted.names) >= KEPT_NAMES


def test_every_component_shows_and_melanin_shows_most(painted: Painted) -> None:
    power = (painted.basis[painted.used] ** 2).sum((0, 1))
    peak = np.abs(painted.basis[painted.used]).max((0, 1))
    assert peak.min() > 0.005 and peak.max() < 0.25  # visible, but one deviation is no other person's paint
    assert np.argmax(power) == painted.names.index("melanin")
    assert power.max() > 0.5 * power.sum()


def test_tone_components_are_smooth_and_orthogonal_to_all_others(painted: Painted) -> None:
    flat = painted.basis.reshape(-1, 50)
    flat = flat / np.linalg.norm(flat, axis=0)
    tones = [name.startswith("tone_") for name in painted.names]
    assert sum(tones) >= 5
    assert np.abs(flat.T @ flat - np.eye(50))[tones].max() < 1e-8


def test_melanin_darkens_without_leaving_the_hues_of_skin(painted: Painted) -> None:
    """Hue angle and chroma of measured human skin (Xiao et al. 2017): about 40 to 75 degrees, 8 to 28."""
    forehead = painted.near(0, 45, 12)
    steps = np.arange(-2, 2.01, 0.5)
    colors = np.array(
        [(painted.mean + step * painted.component("melanin"))[forehead].mean(0) for step in steps]
    )
    measured = lab(colors)
    assert (np.diff(measured[:, 0]) < -4).all()
    assert measured[0, 0] > 76 and measured[-1, 0] < 36
    hue, chroma = (
        np.degrees(np.arctan2(measured[:, 2], measured[:, 1])),
        np.hypot(measured[:, 1], measured[:, 2]),
    )
    assert (hue > 40).all() and (hue < 75).all()
    assert (chroma > 8).all() and (chroma < 28).all()
    # Melanin absorbs the more the shorter the wave: blue falls by a larger share than green, green than red.
    share = (painted.component("melanin") / painted.mean)[forehead].mean(0)
    assert share[2] < 1.05 * share[1] and share[1] < 1.1 * share[0] < 0
    # Everywhere on the skin, not only here; in display code, so reflectance 0.2 and not 0.5 for the mean.
    bare = (painted.masks["skin"] > 0.95) & painted.used
    assert (painted.component("melanin")[bare] < 0).all()
    assert 40 < measured[4, 0] < 65 and 0.15 < ((measured[4, 0] + 16) / 116) ** 3 < 0.35


def test_random_skins_are_neither_gray_nor_orange(painted: Painted) -> None:
    cheek = painted.near(40, -40, 10) | painted.near(0, 40, 20)
    generator = np.random.default_rng(1)
    colors = (
        (painted.mean[cheek][..., None] + painted.basis[cheek] @ generator.normal(size=(50, 300))).mean(0).T
    )
    measured = lab(np.clip(colors, 0, 1))
    hue = np.degrees(np.arctan2(measured[:, 2], measured[:, 1]))
    assert np.percentile(hue, 5) > 35 and np.percentile(hue, 95) < 80
    assert np.percentile(np.hypot(measured[:, 1], measured[:, 2]), 5) > 8
    assert np.ptp(np.percentile(measured[:, 0], [5, 95])) > 30  # from light to dark


@pytest.mark.parametrize("name, width", [("freckles", 2), ("age_spots", 3)])
def test_spots_only_darken_and_two_deviations_less_remove_them(
    painted: Painted, name: str, width: int
) -> None:
    spots = painted.component(name)
    assert (spots <= 0).all()
    # With -2 the mean's own spots are gone: what is left does not follow their pattern, in either direction.
    clear = painted.masks["skin"] * (painted.masks["brow"] + painted.masks["lips"] < 0.01) > 0.9
    clear &= painted.used & (painted.c.z > 60) & (np.abs(spots).max(-1) > 0)
    fine = lambda image: (image[..., 1] - gaussian_filter(image[..., 1], width))[clear]  # noqa: E731
    pattern = fine(-spots)
    strength = lambda image: fine(image) @ pattern / (pattern @ pattern)  # noqa: E731
    assert strength(painted.mean) < -1.2
    assert abs(strength(painted.mean - 2 * spots)) < 0.8


def test_no_beard_is_never_lighter_than_the_skin_beside_it(painted: Painted) -> None:
    chin, cheek = painted.near(20, -95, 6), painted.near(52, -25, 5)
    shaved = painted.mean - painted.component("beard")
    grown = painted.mean + 2 * painted.component("beard")
    assert lab(shaved[chin].mean(0))[0] < lab(shaved[cheek].mean(0))[0] + 2
    assert lab(grown[chin].mean(0))[0] < lab(shaved[chin].mean(0))[0] - 6


def test_hair_grows_where_hair_grows(painted: Painted) -> None:
    c, m = painted.c, painted.masks
    inside = border_depth(c.points)
    assert (m["hair"][inside < -22] == 0).all()
    assert m["hair"][(inside > 30) & (c.on("skin") > 0)].min() > 0.3
    assert (m["hair"][c.on("skin") == 0] == 0).all()
    # The forehead, a third of the face above the brows, is free up to about 75 mm above the eyes.
    assert (m["hair"][painted.near(0, 45, 14)] == 0).all()
    assert (m["brow"][(c.y < 8) | (c.y > 36) | (c.ax > 66)] == 0).all()
    assert (m["beard"][(c.y > 2) | (c.z < 14)] == 0).all()
    assert (m["beard"] * m["lips"]).max() < 0.3
    for name, mask in (("hair_lightness", m["hair"] + m["brow"] + m["beard"] + m["lash"]),):
        assert (np.abs(painted.component(name))[mask == 0] == 0).all()
    for name in ("hair_line", "hair_temples", "hair_crown", "hair_sides", "scalp_hair_density"):
        assert (np.abs(painted.component(name))[m["hair"] == 0] == 0).all()


def test_hair_runs_from_balding_to_full(painted: Painted) -> None:
    top = (border_depth(painted.c.points) > 8) & (painted.c.y > 70) & (painted.c.on("skin") > 0)
    hairs = sum(painted.component(name) for name in ("hair_line", "scalp_hair_density", "hair_temples"))
    lightness = [lab(np.clip(painted.mean + k * hairs, 0, 1)[top].mean(0))[0] for k in (-2, 0, 2)]
    skin = lab(painted.mean[painted.near(0, 45, 12)].mean(0))[0]
    assert skin > lightness[0] > lightness[1] + 8 and lightness[1] > lightness[2] > 5


def test_the_mean_is_symmetric_but_for_its_grain(painted: Painted) -> None:
    c, mean = painted.c, painted.mean
    for x, y, reach in ((40, -36, 10), (28, -11, 5), (20, 45, 10), (35, 25, 5), (15, -71, 6), (45, -80, 8)):
        spot = painted.near(x, y, reach)
        left, right = mean[spot & (c.x > 0)].mean(0), mean[spot & (c.x < 0)].mean(0)
        assert np.abs(left - right).max() < 0.025, (x, y)
    tone = painted.component("left_right_tone")[..., 0]
    assert tone[painted.near(40, -36, 10) & (c.x > 0)].mean() > 0.002
    assert tone[painted.near(40, -36, 10) & (c.x < 0)].mean() < -0.002


def test_eyes_have_pupil_iris_limbal_ring_and_white(painted: Painted) -> None:
    polar, ball = np.degrees(painted.masks["polar"]), (painted.c.on("eyeball") > 0) & painted.used
    below = ball & (painted.c.y < -1)  # the lid's shadow lies above
    ring = lambda low, high: lab(painted.mean[below & (polar > low) & (polar < high)].mean(0))[0]  # noqa: E731
    pupil, iris, limbus, white = ring(0, 6.5), ring(11, 15), ring(20.5, 22.5), ring(28, 34)
    assert pupil < limbus < iris < white
    assert white > 70 and pupil < 12
    blue = painted.component("iris_blueness")
    assert (blue[ball & (polar > 11) & (polar < 19)] @ [-1, 0, 1] > 0.05).all()
    assert (np.abs(blue)[~ball] == 0).all()


def test_painting_twice_gives_the_same(painted: Painted) -> None:
    again = mean_texture(painted.c, masks(painted.c))
    assert np.array_equal(again, painted.mean)
    points = np.random.default_rng(0).uniform(-80, 80, size=(4000, 3))
    noise = volume_noise(points, 6.0, 5)
    assert np.array_equal(noise, volume_noise(points, 6.0, 5)) and abs(noise.std() - 1) < 1e-6
    nearby = volume_noise(np.concatenate([points, points + np.array([0.05, 0, 0])]), 6.0, 5)
    assert np.abs(nearby[:4000] - nearby[4000:]).max() < 0.2  # continuous: no seam can show
