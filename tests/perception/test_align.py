"""Similarities against an SVD implementation, warps and crops against images made of formulas."""

import numpy as np
import pytest
import torch
from PIL import Image

from facegpt.errors import ConfigError, LandmarkError
from facegpt.perception.align import (
    LARGEST_CROP,
    align_face,
    apply_matrix,
    check_crop,
    crop_face,
    fit_similarity,
    five_points,
    warp,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama 1991, eq. 34-43, by SVD with the sign correction against reflections."""
    x, y = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    sign = np.array([1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u * sign @ vt
    scale = (d * sign).sum() / (x**2).sum(1).mean()
    matrix = np.eye(3)
    matrix[:2, :2] = scale * rotation
    matrix[:2, 2] = target.mean(0) - scale * rotation @ source.mean(0)
    return matrix


def similarity(angle: float, scale: float, x: float, y: float) -> torch.Tensor:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return torch.tensor([[c, -s, x], [s, c, y], [0, 0, 1]], dtype=torch.float64)[None]


def smooth_image(size: int, matrix: torch.Tensor | None = None) -> torch.Tensor:
    """A smooth pattern (1,3,size,size), seen through `matrix` (pixels of this image -> pattern)."""
    centers = torch.arange(size, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    points = torch.stack([x, y], -1).reshape(1, -1, 2)
    if matrix is not None:
        points = apply_matrix(matrix, points)
    u, v = points.reshape(size, size, 2).unbind(-1)
    return torch.stack([torch.sin(u / 9), torch.cos(v / 11), torch.sin((u + v) / 13)])[None] / 2 + 0.5


def test_similarity_equals_umeyamas_even_against_a_mirrored_target():
    random = np.random.default_rng(0)
    source = random.normal(size=(5, 7, 2)) * 30 + 50
    target = random.normal(size=(5, 7, 2)) * 20
    target[3] = source[3] * [-1, 1]  # the best fit is a reflection, which must not be returned
    found = fit_similarity(torch.from_numpy(source), torch.from_numpy(target)).numpy()
    assert np.allclose(found, [umeyama(s, t) for s, t in zip(source, target, strict=True)], atol=1e-9)
    assert (np.linalg.det(found) >= 0).all()


def test_similarity_recovers_an_exact_transform():
    truth = similarity(0.4, 1.7, -3.0, 8.0)
    points = torch.randn(1, 5, 2, dtype=torch.float64, generator=generator())
    assert torch.allclose(fit_similarity(points, apply_matrix(truth, points)), truth)


def test_five_points_are_eye_centers_nose_tip_and_mouth_corners():
    landmarks = torch.arange(136.0).reshape(1, 68, 2)
    expected = [(75.0, 76.0), (87.0, 88.0), (60.0, 61.0), (96.0, 97.0), (108.0, 109.0)]
    assert five_points(landmarks)[0].tolist() == [list(pair) for pair in expected]


def test_warp_moves_pixels_where_the_matrix_says():
    matrix = similarity(0.3, 0.8, -1.1, -20.0)  # takes (40, 40) to (20, 20)
    warped = warp(smooth_image(80), matrix, 40)
    expected = smooth_image(40, torch.linalg.inv(matrix))
    assert (warped - expected)[..., 4:-4, 4:-4].abs().max() < 3e-3  # bilinear interpolation of the pattern


def test_warp_by_the_identity_changes_nothing_and_outside_is_black():
    image = torch.rand(2, 3, 16, 16, generator=generator())
    identity = torch.eye(3).expand(2, 3, 3)
    assert torch.allclose(warp(image, identity, 16), image, atol=1e-6)
    larger = warp(image, identity, 32)
    assert larger[..., 17:].abs().max() == 0 and larger[..., 17:, :].abs().max() == 0


def test_warp_gradient_is_that_of_a_linear_map():
    image = torch.rand(1, 2, 5, 5, dtype=torch.float64, generator=generator(), requires_grad=True)
    matrix = similarity(0.2, 1.3, 0.5, -0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: warp(x, matrix, 6), image)
    warp(image, matrix, 6).sum().backward()
    assert matrix.grad is None


def test_align_face_puts_eyes_nose_and_mouth_on_the_template():
    """Each of the five points is drawn as a blob; aligned, the blobs are where ArcFace expects them."""
    template = torch.tensor(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    template = template.double() + 0.5  # published with pixel centres at integers
    place = similarity(-0.25, 1.6, 30.0, 55.0)
    points = apply_matrix(place, template[None])[0]
    landmarks = torch.zeros(1, 68, 2, dtype=torch.float64)
    landmarks[0, [36, 39]] = points[0] + torch.tensor([[-5.0, 1.0], [5.0, -1.0]], dtype=torch.float64)
    landmarks[0, [42, 45]] = points[1] + torch.tensor([[-4.0, 2.0], [4.0, -2.0]], dtype=torch.float64)
    landmarks[0, [30, 48, 54]] = points[2:]
    centers = torch.arange(240, dtype=torch.float64) + 0.5
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    pixels = torch.stack([x, y], -1)
    blobs = torch.stack([torch.exp(-(pixels - p).square().sum(-1) / 30) for p in points])[None]
    aligned = align_face(blobs, landmarks)[0]
    assert aligned.shape == (5, 112, 112)
    grid = pixels[:112, :112]
    for blob, expected in zip(aligned, template, strict=True):
        center = (grid * blob[..., None]).sum((0, 1)) / blob.sum()
        assert torch.allclose(center, expected, atol=0.02)


def test_align_face_ignores_autocast_and_survives_a_collapsed_face():
    image = torch.rand(1, 3, 64, 64, generator=generator())
    landmarks = 64 * torch.rand(1, 68, 2, generator=generator(1))
    plain = align_face(image, landmarks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(align_face(image, landmarks), plain)
    assert torch.isfinite(align_face(image, torch.full((1, 68, 2), 20.0))).all()


def photo(width: int, height: int) -> Image.Image:
    """Red is the column, green the row, in units of 1/255 of the size."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((255 * np.stack([x, y, 0 * x], -1)).round().astype(np.uint8))


def box_landmarks(left: float, top: float, right: float, bottom: float) -> torch.Tensor:
    corner = torch.tensor([left, top])
    points = corner + torch.rand(68, 2, generator=generator()) * torch.tensor([right - left, bottom - top])
    points[:2] = torch.tensor([[left, top], [right, bottom]])
    return points


def test_crop_is_decas_box():
    landmarks = box_landmarks(200.0, 150.0, 300.0, 270.0)
    crop, moved, matrix = crop_face(photo(640, 480), landmarks)
    side = int(110 * 1.25 * 1.1)  # mean of 100 and 120, truncated as DECA does
    assert crop.size == (224, 224) and crop.mode == "RGB"
    # DECA maps the box's corners to 0 and 223 with centres at integers: 0.5 and 223.5 here
    corners = torch.tensor([[250.0 - side / 2, 210.0 - side / 2], [250.0 + side / 2, 210.0 + side / 2]])
    mapped = apply_matrix(matrix[None], corners[None].double())[0]
    assert torch.allclose(mapped, torch.tensor([[0.5, 0.5], [223.5, 223.5]], dtype=torch.float64))
    assert torch.allclose(moved.double(), apply_matrix(matrix[None], landmarks[None].double())[0], atol=1e-4)
    # what the crop shows at a pixel is what the photo shows where the matrix comes from
    pixels = np.asarray(crop).astype(float)
    for row, column in ((0, 0), (20, 180), (110, 112), (223, 223)):
        x, y = (np.linalg.inv(matrix.numpy()) @ [column + 0.5, row + 0.5, 1])[:2]
        assert np.allclose(pixels[row, column, :2], [255 * x / 640, 255 * y / 480], atol=1.0)


@pytest.mark.parametrize("size", [32, 224])
def test_crop_repeats_the_edge_outside_the_photo(size):
    crop, _, matrix = crop_face(photo(64, 64), box_landmarks(-10, -10, 40, 40), size)
    pixels = np.asarray(crop).astype(float)
    x, y = -matrix[:2, 2] / matrix[0, 0]
    assert x < -10 and y < -10  # the box leaves the photo
    assert np.allclose(pixels[0, 0, :2], 255 * 0.5 / 64, atol=1.0)
    assert pixels[..., 0].max() > 100


def test_crop_averages_when_it_shrinks():
    checks = np.indices((800, 800)).sum(0) % 2 * 255  # at every second pixel all is black or all is white
    image = Image.fromarray(checks.astype(np.uint8))
    pixels = np.asarray(crop_face(image, box_landmarks(100, 100, 600, 600), 64)[0])
    assert abs(pixels.astype(float) - 127.5).max() < 8


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_a_crop_of_any_color_mode_is_the_crop_of_the_photo_as_rgb(mode):
    image, landmarks = photo(64, 48).convert(mode), box_landmarks(-5, 10, 45, 60)
    crop, expected = (crop_face(each, landmarks, 32)[0] for each in (image, image.convert("RGB")))
    assert crop.mode == "RGB" and np.array_equal(np.asarray(crop), np.asarray(expected))


def one_astray(value: float) -> torch.Tensor:
    landmarks = box_landmarks(10, 10, 50, 50)
    landmarks[40, 1] = value
    return landmarks


IMPOSSIBLE = [
    ((64, 64), torch.zeros(67, 2), r"\(67, 2\)"),
    ((64, 64), torch.full((68, 2), torch.nan), "finite"),
    ((64, 64), torch.full((68, 2), 30.0), "a crop of 0 pixels"),
    ((64, 64), torch.full((68, 2), 1e20), "a crop of 0 pixels"),
    ((64, 64), one_astray(1e20), r"a crop of 6.875e\+19 pixels"),
    ((64, 64), one_astray(-3e38), r"a crop of 2.0625e\+38 pixels"),
    ((64, 64), box_landmarks(0, 0, 1e6, 1e6), "a crop of 1.375e"),
    ((64, 64), box_landmarks(200, 200, 240, 240), "outside the photo of 64 x 64"),
    # within the longer side but beside the photo all the same
    ((200, 300), box_landmarks(235, 100, 275, 140), "outside the photo of 200 x 300"),
    # fewer than four photo sides, and still 13.8 GiB
    ((20000, 4000), box_landmarks(-20000, -26000, 40000, 30000), f"{LARGEST_CROP} is the limit"),
]


@pytest.mark.parametrize(("size", "landmarks", "message"), IMPOSSIBLE)
def test_impossible_landmarks_are_refused_alike_with_and_without_the_photo(size, landmarks, message):
    with pytest.raises(LandmarkError, match=message):
        check_crop(size, landmarks)
    with pytest.raises(LandmarkError, match=message):
        crop_face(Image.new("1", size), landmarks)


def test_the_square_is_known_before_the_photo_is_read():
    assert check_crop((640, 480), box_landmarks(200.0, 150.0, 300.0, 270.0)) == (250, 210, 151)


@pytest.mark.parametrize("size", [-1, 0, 1, 15, LARGEST_CROP + 1])
def test_crops_of_no_or_too_many_pixels_are_refused(size):
    with pytest.raises(ConfigError, match=f"a face crop of {size} pixels"):
        crop_face(photo(64, 64), box_landmarks(10, 10, 50, 50), size)
