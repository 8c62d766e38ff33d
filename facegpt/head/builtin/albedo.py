"""Albedo of the mean head and fifty components, painted where each texel lies on the mean surface.

Colours are display-coded RGB in [0, 1]. A component is the change for one standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from facegpt.head.builtin import anatomy, eyes, mouth
from facegpt.head.builtin.assemble import HeadMesh
from facegpt.head.builtin.regions import hairline, inside_curve
from facegpt.head.builtin.rig import smoothstep
from facegpt.head.builtin.surface import to_capsule
from facegpt.head.builtin.unwrap import texel_triangles

Array = np.ndarray

SIZE, COUNT = 256, 50

SKIN = np.array([0.700, 0.525, 0.435])
LIPS = np.array([0.560, 0.320, 0.290])
HAIR = np.array([0.185, 0.140, 0.115])
IRIS = np.array([0.300, 0.210, 0.140])
SCLERA = np.array([0.880, 0.855, 0.835])
TOOTH = np.array([0.880, 0.850, 0.770])
GUM = np.array([0.560, 0.290, 0.280])


@dataclass
class Canvas:
    """Every texel's place on the head, (H, W) arrays; millimetres. x is the signed, ax the absolute
    coordinate."""

    points: Array
    part: Array
    part_names: list[str]
    noise: Array

    @property
    def x(self) -> Array:
        return self.points[..., 0]

    @property
    def ax(self) -> Array:
        return np.abs(self.points[..., 0])

    @property
    def y(self) -> Array:
        return self.points[..., 1]

    @property
    def z(self) -> Array:
        return self.points[..., 2]

    def on(self, *names: str) -> Array:
        """1 on texels of the parts with one of these names (sides left out), else 0."""
        plain = [part.removeprefix("left_").removeprefix("right_") for part in self.part_names]
        return np.isin(self.part, [code for code, part in enumerate(plain) if part in names]).astype(float)

    def spot(self, x: float, y: float, wide: float, high: float) -> Array:
        """Soft spot (H, W) on the front of the skin, on both sides."""
        near = np.exp(-0.5 * (((self.ax - x) / wide) ** 2 + ((self.y - y) / high) ** 2))
        return near * (self.z > 30) * self.on("skin", "inner_lids")


def canvas(head: HeadMesh, uv: Array, uv_triangles: Array) -> Canvas:
    """Positions of all texels; those outside every triangle take the nearest texel's."""
    triangle, weights = texel_triangles(uv, uv_triangles, SIZE)
    corners = head.vertices[head.triangles[np.maximum(triangle, 0)]]  # (H, W, 3, 3)
    points = (weights[..., None] * corners).sum(2)
    _, nearest = distance_transform_edt(triangle < 0, return_indices=True)
    points = points[nearest[0], nearest[1]]
    names = ["skin", *head.grids]
    codes = np.searchsorted(names, head.triangle_part, sorter=np.argsort(names))
    codes = np.argsort(names)[codes]
    part = codes[np.maximum(triangle, 0)][nearest[0], nearest[1]]
    generator = np.random.default_rng(7)
    noise = np.stack(
        [gaussian_filter(generator.normal(size=(SIZE, SIZE)), s, mode="wrap") for s in (0.6, 1.5, 4.0)]
    )
    return Canvas(points, part, names, noise / noise.std(axis=(1, 2), keepdims=True))


def masks(c: Canvas) -> dict[str, Array]:
    """Where things are, (H, W) in 0..1."""
    skin = c.on("skin", "ear", "inner_lids")
    front = (c.z > 55) * c.on("skin", "inner_lids")
    azimuth, arc, _ = to_capsule(c.points)
    edge = hairline(azimuth) + 2.2 * c.noise[1]
    hair = smoothstep(0.5 + (arc - edge) / 9.0) * c.on("skin")
    lips = (
        smoothstep(0.5 + inside_curve(c.ax, c.y, anatomy.UPPER_LIP, anatomy.LOWER_LIP) / 1.6)
        * (c.z > 80)
        * c.on("skin")
    )
    lips = np.maximum(lips, 0)
    # Brows: along the five landmarks, thick inside and thin outside, with a trace of hairs.
    brow_x = np.array([8.5, 11.7, 24.1, 37.9, 49.3, 57.0])
    middle = np.interp(c.ax, brow_x, [20.5, 21.6, 24.2, 25.4, 22.0, 16.5])
    half = np.interp(c.ax, [7.5, 11, 22, 38, 50, 59], [0.5, 3.3, 3.8, 3.0, 1.9, 0.3])
    brow = (
        np.exp(-(np.abs((c.y - middle) / np.maximum(half, 0.2)) ** 3))
        * smoothstep((c.ax - 7.5) / 6)
        * smoothstep((60 - c.ax) / 9)
    )
    brow = np.clip(brow * (0.86 + 0.10 * c.noise[0]), 0, 1) * front
    # Beard: moustache, chin, jaw and cheek below a line from the ear to the mouth.
    cheek_line = np.interp(c.ax, [0, 14, 28, 45, 60, 74], [-50, -50, -60, -68, -52, -25])
    beard = (
        smoothstep(0.5 + (cheek_line - c.y) / 12) * smoothstep((c.y + 128) / 16) * smoothstep((c.z - 22) / 20)
    )
    chin_free = 1 - 0.75 * np.exp(-0.5 * (((c.ax) / 9) ** 2 + ((c.y + 85.5) / 3.5) ** 2))
    beard = (
        beard
        * chin_free
        * (1 - lips)
        * c.on("skin")
        * (1 - np.exp(-0.5 * ((c.ax / 9) ** 2 + ((c.y + 49) / 4) ** 2)))
    )
    upper = np.interp(c.ax, anatomy.UPPER_LID[:, 0], anatomy.UPPER_LID[:, 1], left=-9, right=-9)
    lower = np.interp(c.ax, anatomy.LOWER_LID[:, 0], anatomy.LOWER_LID[:, 1], left=99, right=99)
    lash = np.exp(-(((c.y - upper - 0.5) / 1.0) ** 2)) + 0.4 * np.exp(-(((c.y - lower + 0.3) / 0.9) ** 2))
    lash = np.clip(lash, 0, 1) * (c.z > 70) * c.on("skin") * smoothstep((c.ax - 20) / 5) * (c.ax < 44.6)
    nostril = np.exp(-(((c.ax - 7.6) / 2.9) ** 2) - ((c.y + 46.2) / 1.5) ** 2) * (c.z > 100) * c.on("skin")
    slit_y = np.interp(c.ax, anatomy.LIP_LINE[:, 0], anatomy.LIP_LINE[:, 1])
    slit = np.exp(-(((c.y - slit_y) / 0.7) ** 2)) * (c.ax < 25) * (c.z > 90) * c.on("skin")
    polar = eyes.polar_angle(c.points.reshape(-1, 3)).reshape(SIZE, SIZE)
    ball = c.on("eyeball")
    iris = smoothstep(0.5 + (eyes.IRIS_ANGLE - polar) / 0.05) * ball
    pupil = smoothstep(0.5 + (eyes.PUPIL_ANGLE - polar) / 0.04) * ball
    return {
        "skin": skin * (1 - hair), "all_skin": skin, "hair": hair, "lips": lips, "brow": brow,
        "beard": beard * (1 - hair),
        "lash": lash, "nostril": nostril, "slit": slit, "iris": iris * (1 - pupil), "pupil": pupil,
        "polar": polar,
        "sclera": ball * (1 - iris), "mouth": c.on("cavity"), "teeth": c.on("upper_teeth", "lower_teeth"),
        "lid_rim": c.on("inner_lids"),
    }  # fmt: skip


def _mix(image: Array, mask: Array, color: Array | float) -> Array:
    return image * (1 - mask[..., None]) + mask[..., None] * color


def mean_texture(c: Canvas, m: dict[str, Array]) -> Array:
    """(H, W, 3): a medium skin tone, short dark hair, brown eyes."""
    image = np.broadcast_to(SKIN, (SIZE, SIZE, 3)).copy()
    red = (
        c.spot(40, -38, 15, 14)
        + 0.9 * c.spot(4, -36, 9, 8)
        + 0.35 * c.spot(0, -100, 14, 9)
        + 0.8 * c.on("ear")
    )
    image += red[..., None] * np.array([0.022, -0.020, -0.018])
    image += c.spot(10, 50, 32, 16)[..., None] * np.array([0.018, 0.018, 0.010])
    image -= c.spot(27, -11, 10, 4)[..., None] * np.array([0.045, 0.045, 0.030])
    image -= c.spot(30, 9, 13, 4)[..., None] * np.array([0.035, 0.045, 0.040])
    image += ((0.006 * c.noise[1] + 0.008 * c.noise[2]) * m["all_skin"])[..., None]
    image = _mix(image, 0.80 * m["lips"], LIPS)
    image = _mix(image, 0.10 * m["beard"], HAIR + 0.12)
    image = _mix(image, 0.35 * m["lid_rim"], LIPS + 0.1)
    image = _mix(image, 0.75 * m["nostril"], np.array([0.16, 0.08, 0.07]))
    image = _mix(image, 0.55 * m["slit"], np.array([0.25, 0.10, 0.10]))
    strands = np.clip(1 + 0.16 * c.noise[0] + 0.08 * c.noise[1], 0.5, 1.6)[..., None]
    image = image * (1 - m["hair"][..., None] * 0.96) + 0.96 * m["hair"][..., None] * HAIR * strands
    image = _mix(image, 0.80 * m["brow"], HAIR + 0.02)
    image = _mix(image, 0.70 * m["lash"], np.array([0.13, 0.09, 0.08]))
    ball = c.on("eyeball")
    image = _mix(image, ball, SCLERA)
    veins = np.clip((m["polar"] - 0.6) / 0.7, 0, 1) * ball
    image -= veins[..., None] * np.array([0.03, 0.14, 0.14])
    turn = np.arctan2(c.y, c.ax - anatomy.EYE_CENTER[0])
    rays = 1 + 0.16 * np.sin(turn * 23) + 0.10 * np.sin(turn * 41 + 1)
    rim = 1 - 0.55 * smoothstep((m["polar"] - 0.31) / 0.10)
    iris = IRIS * (rays * rim)[..., None]
    image = _mix(image, m["iris"], iris)
    image = _mix(image, m["pupil"], 0.03)
    image = _mix(image, m["mouth"], GUM)
    deep = smoothstep((104 - c.z) / 30) * m["mouth"]
    image = _mix(image, deep, np.array([0.16, 0.05, 0.05]))
    image = _mix(image, m["teeth"], TOOTH)
    gum = smoothstep(0.5 + np.maximum(c.y + 61.5, -79.5 - c.y) / 1.5) * m["teeth"]
    between = mouth.tooth_edges(c.points.reshape(-1, 3)).reshape(SIZE, SIZE) * m["teeth"]
    image = _mix(image, 0.35 * between, TOOTH * [0.55, 0.45, 0.38])
    image = _mix(image, gum, GUM)
    return np.clip(image, 0.02, 0.98)


def texture_basis(c: Canvas, m: dict[str, Array]) -> tuple[Array, list[str]]:
    """(H, W, 3, 50) and the components' names."""
    skin, hair, lips, brow, beard = m["skin"], m["hair"], m["lips"], m["brow"], m["beard"]
    bare = skin * (1 - 0.7 * brow) * (1 - 0.6 * m["lash"])
    ears_nose = c.spot(0, -38, 12, 9) + c.spot(42, -40, 15, 14) + 0.6 * c.on("ear")
    freckle = np.clip(c.noise[0] - 1.2, 0, 1.5) * (c.spot(30, -25, 26, 16) + c.spot(0, -18, 12, 14))
    spots = np.clip(c.noise[1] - 1.7, 0, 1.2) * skin
    lid = c.spot(31, 8, 14, 5)
    parts: list[tuple[str, Array, tuple[float, float, float]]] = [
        ("melanin", bare * (1 - 0.3 * lips) + 0.12 * hair, (-0.150, -0.142, -0.128)),
        ("haemoglobin", bare, (0.014, -0.015, -0.013)),
        ("yellowness", bare, (0.005, 0.002, -0.018)),
        ("hair_lightness", hair + 0.75 * brow + 0.25 * m["lash"], (0.05, 0.038, 0.027)),
        ("hair_redness", hair + 0.6 * brow, (0.022, 0.002, -0.008)),
        ("hair_greyness", hair + 0.5 * brow, (0.018, 0.021, 0.024)),
        ("lip_colour", lips, (0.026, -0.026, -0.018)),
        ("lip_lightness", lips, (0.026, 0.022, 0.021)),
        ("brow_darkness", brow, (-0.05, -0.043, -0.04)),
        ("beard", beard, (-0.06, -0.047, -0.04)),
        ("moustache", beard * c.spot(0, -55, 18, 6), (-0.05, -0.042, -0.038)),
        (
            "hair_line",
            smoothstep(1 - np.abs(c.y - 52) / 16) * (c.z > 30) * c.on("skin"),
            (-0.03, -0.025, -0.022),
        ),
        ("scalp_hair_density", hair, (-0.022, -0.018, -0.016)),
        ("iris_lightness", m["iris"], (0.05, 0.055, 0.055)),
        ("iris_blueness", m["iris"], (-0.04, 0.01, 0.065)),
        ("iris_greenness", m["iris"], (-0.014, 0.036, -0.008)),
        ("sclera_brightness", m["sclera"], (0.025, 0.032, 0.036)),
        ("under_eye_circles", c.spot(28, -11, 11, 4.5), (-0.03, -0.032, -0.024)),
        ("cheek_blush", c.spot(44, -38, 14, 12), (0.026, -0.014, -0.01)),
        ("nose_redness", c.spot(0, -38, 12, 9), (0.02, -0.012, -0.009)),
        ("ear_and_cheek_redness", ears_nose, (0.016, -0.009, -0.008)),
        ("eye_shadow", lid, (-0.028, -0.032, -0.02)),
        ("eye_liner", m["lash"], (-0.05, -0.046, -0.04)),
        ("lid_redness", c.spot(31, 0, 16, 9), (0.014, -0.01, -0.008)),
        ("freckles", freckle, (-0.045, -0.045, -0.037)),
        ("age_spots", spots, (-0.03, -0.03, -0.026)),
        ("forehead_lightness", c.spot(0, 42, 34, 16), (0.014, 0.014, 0.012)),
        ("lower_face_lightness", c.spot(0, -95, 40, 24), (0.014, 0.013, 0.012)),
        ("nose_lightness", c.spot(0, -25, 8, 20), (0.014, 0.014, 0.013)),
        ("eye_socket_shade", c.spot(30, 4, 17, 13), (-0.018, -0.019, -0.017)),
        ("smile_line_shade", c.spot(30, -55, 4, 12), (-0.016, -0.017, -0.016)),
        ("neck_lightness", smoothstep((-100 - c.y) / 25) * skin, (0.014, 0.013, 0.012)),
        ("ear_lightness", c.on("ear"), (0.014, 0.012, 0.011)),
        ("teeth_whiteness", m["teeth"], (0.022, 0.028, 0.042)),
        ("philtrum_shade", c.spot(0, -55, 6, 5), (-0.012, -0.012, -0.011)),
        ("chin_redness", c.spot(0, -100, 14, 10), (0.012, -0.007, -0.006)),
        ("left_right_tone", skin * np.clip(c.x / 70, -1, 1), (0.006, 0.0055, 0.005)),
        ("skin_mottle", skin * c.noise[2], (0.006, 0.0055, 0.005)),
        ("skin_grain", skin * c.noise[1], (0.006, 0.006, 0.0055)),
    ]
    names = [name for name, _, _ in parts]
    basis = [mask[..., None] * np.array(color) for _, mask, color in parts]
    generator = np.random.default_rng(11)
    tints = np.array([[1, 0.95, 0.85], [0.7, -0.4, -0.35], [0.4, 0.3, -0.4]])
    for index in range(COUNT - len(parts)):
        # Smooth variation of tone over the face, symmetric, weaker as it gets finer.
        length = 75.0 - 4.0 * index
        waves = generator.normal(size=(5, 3)) * 2 * np.pi / length / 1.7
        phase, amount = generator.uniform(0, 2 * np.pi, 5), generator.normal(size=5)
        place = np.stack([c.ax, c.y, c.z], -1)
        pattern = np.cos(place @ waves.T + phase) @ amount / np.sqrt(2.5)
        tint = tints[index % 3]
        basis.append((0.006 * 0.93**index) * (skin * pattern)[..., None] * tint)
        names.append(f"tone_{index + 1:02d}")
    return np.stack(basis, -1), names
