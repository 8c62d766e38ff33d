"""SFace: a network that normalises bytes by itself, against independent runtimes where they are installed."""

import numpy as np
import pytest
import torch
from protobuf_writer import declared, message, node, weight

from facegpt.errors import MissingPartError
from facegpt.losses.perceptual import perceptual_loss
from facegpt.parts import part_path
from facegpt.perception.align import align_face
from facegpt.perception.recognizer import Recognizer, load_recognizer


def faces(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def normalizing(tmp_path):
    """(x - 100) * 0.02 -> one number per color and half of the picture, as MXNet's converter writes it: the
    weights are inputs too, and the dropout is still there. Nobody would choose 100 and 0.02.
    """
    rows = np.zeros((2, 3, 112, 112))
    rows[0, :, :56], rows[1, :, 56:] = 1e-4, 1e-4
    weights = {"mean": np.array([100.0]), "scale": np.array([0.02]), "w": rows}
    steps = [
        node("Sub", ["x", "mean"], ["centered"]), node("Mul", ["centered", "scale"], ["small"]),
        node("Conv", ["small", "w"], ["h"], strides=[1, 1], pads=[0] * 4),
        node("Dropout", ["h"], ["d"]), node("Flatten", ["d"], ["y"]),
    ]  # fmt: skip
    shapes = {"x": (1, 3, 112, 112)} | {name: array.shape for name, array in weights.items()}
    graph = message(
        *((1, step) for step in steps),
        *((5, weight(name, array)) for name, array in weights.items()),
        *((11, declared(name, *shape)) for name, shape in shapes.items()),
        (12, declared("y")),
    )
    path = tmp_path / "normalizing.onnx"
    path.write_bytes(message((7, graph)))
    return path


def test_a_network_that_subtracts_first_is_fed_bytes(normalizing):
    image = faces(3)
    expected = ((255 * image.double() - 100) * 0.02).sum(dim=1)
    expected = 1e-4 * torch.stack([expected[:, :56].sum((1, 2)), expected[:, 56:].sum((1, 2))], dim=1)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(load_recognizer(normalizing)(image).double(), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def sface() -> Recognizer:
    try:
        return load_recognizer("sface")
    except MissingPartError as error:
        pytest.skip(str(error))


def test_sface_that_was_not_fetched_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path))
    with pytest.raises(MissingPartError, match="`facegpt fetch sface` gets it"):
        load_recognizer("sface")


def test_sface_equals_onnxruntime(sface):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime to compare with")
    session = runtime.InferenceSession(str(part_path("sface")), providers=["CPUExecutionProvider"])
    image = faces(3)
    rows = [session.run(None, {"data": 255 * image[k : k + 1].numpy()})[0] for k in range(3)]
    expected = torch.nn.functional.normalize(torch.from_numpy(np.concatenate(rows)), dim=1)
    torch.testing.assert_close(sface(image), expected, atol=1e-5, rtol=0)


def test_alignment_is_that_of_opencvs_sface(sface):
    """OpenCV's own class aligns the same faces by five points; its coordinates start at the first pixel's
    center, and what it gives has whole numbers.
    """
    cv2 = pytest.importorskip("cv2", reason="needs opencv to compare with")
    random = np.random.default_rng(0)
    # A smooth picture: two samplers that agree in geometry agree in value.
    small = random.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    picture = cv2.resize(small, (240, 240), interpolation=cv2.INTER_CUBIC)
    landmarks = torch.full((1, 68, 2), 120.0)
    five = np.array([[95, 100], [141, 92], [124, 124], [108, 150], [146, 143]], float)
    for rows, point in zip(((36, 39), (42, 45), (30,), (48,), (54,)), five, strict=True):
        landmarks[0, rows] = torch.from_numpy(point).float()
    recognizer = cv2.FaceRecognizerSF.create(str(part_path("sface")), "")
    row = np.concatenate([[60, 60, 120, 120], (five - 0.5).ravel(), [1]]).astype(np.float32)
    theirs = recognizer.alignCrop(picture, row[None])
    image = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1])).permute(2, 0, 1)[None].float() / 255
    ours = align_face(image, landmarks)
    expected = torch.from_numpy(np.ascontiguousarray(theirs[..., ::-1])).permute(2, 0, 1)[None].float()
    assert float((255 * ours - expected).abs().mean()) < 1
    features = torch.from_numpy(recognizer.feature(theirs))
    own = sface(ours)
    assert float(torch.cosine_similarity(own, features)) > 0.999


def test_the_perceptual_loss_of_sface_reaches_the_picture(sface):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    landmarks = 16 + 32 * torch.rand(1, 68, 2, generator=torch.Generator().manual_seed(2))
    loss = perceptual_loss(sface, image.detach().flip(3), landmarks, image, landmarks)
    loss.sum().backward()
    assert 0 < loss.item() < 2
    assert image.grad is not None and float(image.grad.abs().max()) > 0
