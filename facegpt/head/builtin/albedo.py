"""Albedo of the mean head and fifty components, painted where each texel lies on the mean surface.

Colours are display-coded (sRGB) RGB in [0, 1], as in DECA's textures: coefficients are added, and shading is
multiplied, in display code; `(c + 0.055) / 1.055) ** 2.4` gives linear reflectance to a renderer that wants
it. A component is the change for one standard deviation, so coefficients are N(0, 1).

What can only darken (freckles, age spots, stubble) is present in the mean as faintly as -2 or -1 standard
deviations take away again: the model is linear, and lighter spots would look like a disease.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from facegpt.head.builtin import anatomy, eyes, mouth
from facegpt.head.builtin.canvas import FRONT, SIZE, Canvas
from facegpt.head.builtin.hair import ScalpHair, beard, brows, lashes, scalp_hair
from facegpt.head.builtin.regions import inside_curve
from facegpt.head.builtin.rig import smoothstep

Array = np.ndarray

COUNT = 50

SKIN = np.array([0.665, 0.511, 0.420])
MELANIN = np.array([-0.139, -0.125, -0.109])
BLOOD = np.array([0.030, -0.018, -0.014])  # what a blush adds
LIPS = np.array([0.590, 0.365, 0.340])
HAIR = np.array([0.215, 0.165, 0.135])
HAIR_MELANIN = np.array([-0.050, -0.038, -0.030])
LASH = np.array([0.120, 0.090, 0.080])
IRIS = np.array([0.335, 0.250, 0.180])
SCLERA = np.array([0.825, 0.795, 0.770])
TOOTH = np.array([0.845, 0.810, 0.730])
GUM = np.array([0.580, 0.310, 0.295])
TONGUE = np.array([0.640, 0.370, 0.355])
THROAT = np.array([0.150, 0.050, 0.050])

BEARD, FRECKLE, AGE_SPOT = 0.115, 0.052, 0.030  # opacity, depth and depth for one standard deviation
MEAN_BEARD, MEAN_SPOTS = 1.3, 2.0  # standard deviations of these in the mean


def masks(c: Canvas) -> dict[str, Array]:
    """Where things are, (H,W) in 0..1; "skin" is what no hair covers, "strands" is unit noise along it."""
    all_skin = c.on("skin", "ear", "inner_lids", "nostril")
    hair = scalp_hair(c)
    brow, fringe = brows(c)
    inside = inside_curve(c.ax, c.y, anatomy.UPPER_LIP, anatomy.LOWER_LIP)
    lips = smoothstep(0.5 + (inside + 0.35 * c.noise(3.0, 61)) / 2.8) * (c.z > 80) * c.on("skin")
    polar = eyes.polar_angle(c.points.reshape(-1, 3)).reshape(SIZE, SIZE)
    ball = c.on("eyeball")
    iris = smoothstep(0.5 + (eyes.IRIS_ANGLE - polar) / 0.07) * ball
    pupil = smoothstep(0.5 + (0.95 * eyes.PUPIL_ANGLE - polar) / 0.05) * ball
    # Inside the nostrils, and a little around their rims.
    nostril = c.on("nostril") + 0.5 * c.spot(7.8, -46.0, 2.6, 1.1) * c.on("skin")
    line = np.interp(c.ax, anatomy.LIP_LINE[:, 0], anatomy.LIP_LINE[:, 1])
    slit = np.exp(-(((c.y - line) / 0.8) ** 2)) * smoothstep((26.5 - c.ax) / 4) * (c.z > 85) * c.on("skin")
    return {
        "all_skin": all_skin, "skin": all_skin * (1 - hair.opacity), "hair": hair.opacity,
        "strands": hair.strands, "hair_front": hair.front, "hair_temples": hair.temples,
        "hair_crown": hair.crown, "hair_sides": hair.sides, "brow": brow, "brow_fringe": fringe,
        "lips": lips, "beard": beard(c, lips) * (1 - hair.opacity), "lash": lashes(c), "nostril": nostril,
        "slit": slit, "polar": polar, "iris": iris * (1 - pupil), "pupil": pupil, "sclera": ball * (1 - iris),
        "cavity": c.on("cavity"), "teeth": c.on("upper_teeth", "lower_teeth"), "tongue": c.on("tongue"),
        "lid_rim": c.on("inner_lids"), "freckles": freckles(c) * (1 - lips) * (1 - brow),
        "age_spots": age_spots(c) * (1 - lips) * (1 - hair.opacity),
    }  # fmt: skip


def freckles(c: Canvas) -> Array:
    """Small spots over nose and cheeks, a few on the forehead."""
    where = c.spot(27, -22, 20, 13) + 0.8 * c.spot(0, -20, 14, 12) + 0.3 * c.spot(0, 45, 40, 18)
    return dots(c, 900, (0.7, 1.3), 71) * np.clip(where, 0, 1)


def age_spots(c: Canvas) -> Array:
    """Fewer and larger spots, at the temples, on the forehead and the cheeks."""
    where = c.spot(52, 20, 16, 30) + 0.7 * c.spot(25, 55, 25, 14) + 0.6 * c.spot(48, -28, 14, 18)
    return dots(c, 160, (1.5, 3.2), 72) * np.clip(where, 0, 1)


def dots(c: Canvas, count: int, radii: tuple[float, float], seed: int) -> Array:
    """`count` soft dots (H,W), irregular and of varied strength, strewn over the front of the head."""
    generator = np.random.default_rng(seed)
    middle = generator.uniform([-75.0, -80.0], [75.0, 90.0], size=(count, 2))
    radius, strength = generator.uniform(*radii, size=count), generator.uniform(0.35, 1.0, size=count)
    distance, nearest = cKDTree(middle).query(np.stack([c.x, c.y], -1))
    ragged = distance * (1 + 0.15 * c.noise(2.0, seed)) / radius[nearest]
    return strength[nearest] * np.exp(-(ragged**2)) * c.on(*FRONT)


def redness(c: Canvas) -> Array:
    """Where blood shows in every face: cheeks, nose, ears, chin, lids."""
    return (
        0.85 * c.spot(40, -36, 14, 13) + 0.9 * c.spot(0, -36, 12, 8) + 0.3 * c.spot(0, -100, 14, 9)
        + 0.8 * c.on("ear") + 0.45 * c.spot(31, -7, 14, 7)
    )  # fmt: skip


def shade(c: Canvas) -> Array:
    """Where pigment and hollows darken every face: sockets, below the eyes, beside the nose, the throat."""
    fold = np.exp(-0.5 * ((c.ax - np.interp(-c.y, [40, 50, 70], [19, 25, 32])) / 2.5) ** 2)
    fold *= np.exp(-0.5 * ((c.y + 53) / 9) ** 2) * (c.z > 60) * c.on("skin")
    under = smoothstep((-108 - c.y) / 25) * c.on("skin")
    return (
        0.9 * c.spot(29, 8, 14, 5) + 0.9 * c.spot(26, -11, 10, 4) + 0.5 * c.spot(17, -2, 4, 8) + 0.35 * fold
        + 0.4 * c.spot(0, -84.5, 10, 2.5) + 0.55 * under - 0.35 * c.spot(0, 45, 34, 14)
        + 0.8 * c.on("ear") * smoothstep((83 - c.ax) / 9)
        - 0.25 * c.spot(0, -18, 5, 14) - 0.3 * c.spot(38, -24, 12, 7)
    )  # fmt: skip


def bare_skin(c: Canvas, m: dict[str, Array]) -> Array:
    """(H,W,3): the mean skin without hair, spots or lips."""
    tone = 0.010 * c.noise(2.0, 81) + 0.009 * c.noise(6.0, 82) + 0.008 * c.noise(18.0, 83)
    image = SKIN * (1 + tone[..., None] * [1.0, 1.25, 1.4])
    flush = redness(c) * (1 + 0.25 * c.noise(5.0, 84))
    image += flush[..., None] * BLOOD - shade(c)[..., None] * [0.040, 0.042, 0.034]
    return _mix(image, 0.35 * m["lid_rim"], LIPS + 0.1)


def mean_texture(c: Canvas, m: dict[str, Array]) -> Array:
    """(H,W,3): a medium skin tone, short dark hair, brown eyes, hardly a shadow of a beard."""
    image = bare_skin(c, m)
    image -= MEAN_SPOTS * (FRECKLE * m["freckles"] + AGE_SPOT * m["age_spots"])[..., None] * [0.85, 1.0, 0.95]
    creases = 1 + 0.035 * np.sin(c.x * 2.1 + 1.5 * c.noise(6.0, 62)) + 0.025 * c.noise(2.5, 63)
    image = _mix(image, 0.78 * m["lips"], LIPS * creases[..., None])
    image = _mix(image, MEAN_BEARD * BEARD * m["beard"], HAIR)
    image = _mix(image, 0.92 * m["nostril"], np.array([0.17, 0.08, 0.07]))
    image = _mix(image, 0.60 * m["slit"], np.array([0.24, 0.10, 0.10]))
    sheen = np.clip(1 + 0.17 * m["strands"] + 0.07 * c.noise(14.0, 34), 0.45, 1.7)[..., None]
    image = _mix(image, m["hair"], HAIR * sheen)
    image = _mix(image, 0.92 * m["brow"] + 0.22 * m["brow_fringe"], HAIR)
    image = _mix(image, 0.72 * m["lash"], LASH)
    image = _mix(image, c.on("eyeball"), eye_white(c, m))
    image = _mix(image, m["iris"], iris_color(c, m))
    image = _mix(image, m["pupil"], 0.035)
    image = _mix(image, m["cavity"], GUM)
    image = _mix(image, m["tongue"], TONGUE * (1 + 0.06 * c.noise(2.0, 64))[..., None])
    image = _mix(image, 0.6 * smoothstep((90 - c.z) / 25) * m["tongue"], THROAT)
    image = _mix(image, smoothstep((104 - c.z) / 30) * m["cavity"], THROAT)
    gum = smoothstep(0.5 + np.maximum(c.y + 61.5, -79.5 - c.y) / 1.5) * m["teeth"]
    gaps = mouth.tooth_edges(c.points.reshape(-1, 3)).reshape(SIZE, SIZE) * m["teeth"]
    # Molars lie in the shade of the cheeks.
    back = 1 - 0.45 * smoothstep((c.ax - 11) / 12)[..., None]
    image = _mix(image, m["teeth"], TOOTH * back)
    image = _mix(image, 0.35 * gaps, TOOTH * [0.55, 0.45, 0.38])
    image = _mix(image, gum, GUM * back)
    return np.clip(image, 0.02, 0.98)


def eye_white(c: Canvas, m: dict[str, Array]) -> Array:
    """(H,W,3): bluish white, redder to the sides and darker under the upper lid, whose shadow falls on it."""
    height, aside = c.y, c.ax - anatomy.EYE_CENTER[0]
    lid = smoothstep((height + 1.0) / 7.0)
    red = smoothstep((m["polar"] - 0.45) / 0.5) * (0.8 + 0.4 * (aside < 0))
    image = SCLERA * (1 - 0.26 * lid * np.ones_like(c.x))[..., None]
    return image - red[..., None] * [0.03, 0.085, 0.080] + 0.008 * c.noise(2.0, 91)[..., None]


def iris_color(c: Canvas, m: dict[str, Array]) -> Array:
    """(H,W,3): rays, a warm ring around the pupil, a dark limbal ring, shaded by the upper lid."""
    turn = np.arctan2(c.y, c.ax - anatomy.EYE_CENTER[0])
    rays = 1 + 0.13 * np.sin(turn * 19) + 0.09 * np.sin(turn * 33 + 1)
    share = m["polar"] / eyes.IRIS_ANGLE
    limbus = 1 - 0.62 * smoothstep((share - 0.70) / 0.30)
    collar = 0.10 * np.exp(-(((share - 0.48) / 0.13) ** 2))
    lid = 1 - 0.30 * smoothstep((c.y - 0.5) / 5)
    image = IRIS + collar[..., None] * [1.0, 0.72, 0.38]
    return image * (rays * limbus * lid)[..., None]


def texture_basis(c: Canvas, m: dict[str, Array]) -> tuple[Array, list[str]]:
    """(H,W,3,50) and the components' names."""
    hair = ScalpHair(
        m["hair"], m["strands"], m["hair_front"], m["hair_temples"], m["hair_crown"], m["hair_sides"]
    )
    skin, lips, brow, lash = m["skin"], m["lips"], m["brow"], m["lash"]
    face = skin * (1 - 0.8 * brow) * (1 - 0.6 * lash) * (1 - 0.5 * m["nostril"]) * (1 - 0.5 * m["slit"])
    tinted = hair.opacity + 0.75 * brow + MEAN_BEARD * BEARD * m["beard"]
    shading = (1 + 0.2 * hair.strands)[..., None]
    growth = (HAIR - SKIN) * np.clip(shading, 0.5, 1.5)  # (H, W, 3): from no hair to hair on the scalp
    stubble = HAIR - SKIN
    parts: list[tuple[str, Array, Array | tuple[float, float, float]]] = [
        # Blood and lips show less through dark skin; hair and eyes are darker with it.
        ("melanin", np.ones_like(skin), _melanin(c, m, face)),
        ("haemoglobin", face, (0.008, -0.006, -0.005)),
        ("yellowness", face, (0.004, 0.002, -0.009)),
        ("hair_lightness", tinted + 0.2 * lash, (0.085, 0.070, 0.050)),
        ("hair_redness", tinted, (0.040, 0.003, -0.014)),
        ("hair_greyness", tinted, (0.018, 0.032, 0.041)),
        ("lip_colour", lips, (0.022, -0.028, -0.018)),
        ("lip_lightness", lips, (0.019, 0.019, 0.018)),
        ("brow_darkness", brow + 0.2 * m["brow_fringe"], (-0.050, -0.045, -0.040)),
        ("beard", BEARD * m["beard"], stubble),
        ("moustache", 0.5 * BEARD * m["beard"] * np.clip(1.3 * c.spot(0, -56, 20, 6), 0, 1), stubble),
        ("hair_line", hair.front, growth),
        ("scalp_hair_density", 0.12 * hair.opacity, growth),
        ("iris_lightness", m["iris"], (0.050, 0.048, 0.042)),
        ("iris_blueness", m["iris"], (-0.040, 0.006, 0.052)),
        ("iris_greenness", m["iris"], (-0.012, 0.024, -0.012)),
        ("sclera_brightness", m["sclera"], (0.020, 0.026, 0.030)),
        ("under_eye_circles", c.spot(27, -11.5, 10, 4), (-0.030, -0.030, -0.020)),
        ("cheek_blush", c.spot(44, -36, 14, 12), 0.42 * BLOOD),
        ("nose_redness", c.spot(0, -37, 11, 8), 0.5 * BLOOD),
        ("ear_and_cheek_redness", redness(c), 0.25 * BLOOD),
        ("eye_shadow", c.spot(31, 8, 13, 4.5), (-0.026, -0.030, -0.018)),
        ("eye_liner", lash, (-0.030, -0.030, -0.028)),
        ("lid_redness", c.spot(31, 0, 16, 9), 0.4 * BLOOD),
        ("freckles", FRECKLE * m["freckles"], (-0.85, -1.0, -0.95)),
        ("age_spots", AGE_SPOT * m["age_spots"], (-0.85, -1.0, -0.95)),
        ("forehead_lightness", c.spot(0, 46, 34, 16), (0.010, 0.010, 0.009)),
        ("lower_face_lightness", c.spot(0, -95, 40, 22), (0.010, 0.010, 0.009)),
        ("nose_lightness", c.spot(0, -22, 8, 18), (0.010, 0.010, 0.009)),
        ("eye_socket_shade", c.spot(30, 4, 17, 13), (-0.014, -0.015, -0.012)),
        ("smile_line_shade", c.spot(30, -54, 4, 11), (-0.014, -0.015, -0.013)),
        ("neck_lightness", smoothstep((-100 - c.y) / 25) * skin, (0.010, 0.010, 0.009)),
        ("ear_lightness", c.on("ear"), (0.012, 0.011, 0.010)),
        ("teeth_whiteness", m["teeth"], (0.022, 0.028, 0.042)),
        ("philtrum_shade", c.spot(0, -55, 6, 5), (-0.010, -0.010, -0.009)),
        ("chin_redness", c.spot(0, -100, 14, 10), 0.35 * BLOOD),
        ("left_right_tone", face * np.clip(c.x / 70, -1, 1), (0.006, 0.0055, 0.005)),
        ("skin_mottle", face * c.noise(14.0, 101), (0.004, 0.005, 0.0045)),
        ("skin_grain", face * c.noise(3.0, 102), (0.004, 0.005, 0.005)),
        ("hair_temples", hair.temples, growth),
        ("hair_crown", 0.2 * hair.crown, growth),
        ("hair_sides", 0.7 * hair.sides, growth),
        ("brow_thickness", m["brow_fringe"] + 0.35 * brow, 0.30 * stubble),
        ("chin_beard", 0.7 * BEARD * m["beard"] * np.clip(1.2 * c.spot(0, -96, 19, 15), 0, 1), stubble),
    ]
    names = [name for name, _, _ in parts]
    named = [mask[..., None] * np.asarray(color) for _, mask, color in parts]
    rest = tone_patterns(c, face, np.stack(named, -1), COUNT - len(parts))
    names += [f"tone_{index + 1:02d}" for index in range(rest.shape[-1])]
    return np.concatenate([np.stack(named, -1), rest], -1), names


def _melanin(c: Canvas, m: dict[str, Array], face: Array) -> Array:
    """(H,W,3): skin darker, and with it lips, hair and eyes, each by its share."""
    weight = face * (1 - 0.25 * m["lips"])
    change = weight[..., None] * MELANIN + (m["hair"] + 0.75 * m["brow"])[..., None] * HAIR_MELANIN
    change -= 0.30 * (face * redness(c))[..., None] * BLOOD
    change -= m["lips"][..., None] * [0.020, 0.0, 0.0] * face[..., None]
    return change + m["iris"][..., None] * [-0.060, -0.065, -0.058] - 0.02 * m["sclera"][..., None]


def tone_patterns(c: Canvas, face: Array, named: Array, count: int) -> Array:
    """(H,W,3,count): smooth symmetric variation of tone, finer and weaker one after the other.

    They are orthogonal to each other and to the named components (H,W,3,N).
    """
    generator = np.random.default_rng(11)
    tints = np.array([[1, 0.95, 0.85], [0.5, -0.25, -0.2], [0.4, 0.35, -0.1]])
    place = np.stack([c.ax, c.y, c.z], -1)
    found = named.reshape(-1, named.shape[-1])
    inner = found.T @ found
    patterns: list[Array] = []
    for index in range(count):
        waves = generator.normal(size=(5, 3)) * 2 * np.pi / (75.0 - 5.0 * index) / 1.7
        phase, amount = generator.uniform(0, 2 * np.pi, 5), generator.normal(size=5)
        wave = np.cos(place @ waves.T + phase) @ amount / np.sqrt(2.5)
        pattern = ((face * wave)[..., None] * tints[index % 3]).ravel()
        pattern -= found @ np.linalg.lstsq(inner, found.T @ pattern, rcond=1e-10)[0]
        for earlier in patterns:
            pattern -= earlier * (earlier @ pattern) / (earlier @ earlier)
        size = np.sqrt((pattern**2).sum() / (3 * face.sum()))
        patterns.append(0.004 * 0.93**index / size * pattern)
    return np.stack(patterns, -1).reshape(*named.shape[:3], count)


def _mix(image: Array, mask: Array, color: Array | float) -> Array:
    return image * (1 - mask[..., None]) + mask[..., None] * color
