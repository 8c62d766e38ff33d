"""face-alignment and insightface without their weights: their own code around networks made here.

A picture is black but for one bright spot on which the made networks put every landmark, so what comes back
has to be the spot's place.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from facegpt.errors import MissingPartError
from facegpt.perception.detectors import face_alignment_detector, insightface_detector

BOX = (100.0, 80.0, 260.0, 260.0)


def picture(x: float, y: float, radius: float = 9) -> Image.Image:
    """400 x 340 pixels with a smooth bright spot at (x, y), pixel centres at half integers; red only."""
    columns, rows = np.arange(400) + 0.5, np.arange(340) + 0.5
    spot = np.exp(-((columns - x) ** 2 + ((rows - y) ** 2)[:, None]) / (2 * radius**2))
    return Image.fromarray((255 * spot[..., None] * [1, 0, 0]).round().astype(np.uint8))


def spots() -> list[tuple[float, float]]:
    random = np.random.default_rng(0)
    return [tuple(point) for point in random.uniform((140, 120), (220, 220), (12, 2))]


@pytest.fixture
def alignment(monkeypatch):
    """The package with a box detector and a landmark network of ours in their places."""
    package = pytest.importorskip("face_alignment", reason="needs the package face-alignment")
    from face_alignment.detection import sfd

    class Boxes:
        reference_scale = 195

        def __init__(self, device, verbose, **options):
            assert not options

        def detect_from_image(self, image):
            return [np.array([*BOX, 0.75])] if image.any() else []

    def heat(crops):
        """(B,3,256,256) -> (B,68,64,64); the other side's points are mirrored by the package itself."""
        assert crops[:, 1:].abs().max() == 0  # RGB, and the spot is red
        return torch.nn.functional.avg_pool2d(crops[:, :1], 4).repeat(1, 68, 1, 1)

    monkeypatch.setattr(sfd, "FaceDetector", Boxes)
    monkeypatch.setattr(package.FaceAlignment, "_load_native", lambda self, *_: heat)


def test_points_of_face_alignment_are_ours(alignment):
    """Its heat has cells of 4 pixels of the crop, a quarter of which it resolves: the error is without bias
    and within a cell.
    """
    detect = face_alignment_detector()
    cell = 200 * (160 + 180) / 195 / 64  # pixels of the picture: the crop is 200 scales wide
    errors = []
    for point in spots():
        (face,) = detect(picture(*point))
        assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == torch.float32
        assert face.confidence == 0.75
        errors.append(face.landmarks.numpy() - point)
    assert np.abs(errors).max() < cell
    assert np.abs(np.mean(errors, axis=(0, 1))).max() < cell / 4


def test_face_alignment_finds_nothing_without_a_warning(alignment, recwarn):
    assert face_alignment_detector()(Image.new("L", (400, 340))) == []
    assert not recwarn.list


@pytest.fixture
def insight(monkeypatch):
    """The package's own alignment and decoding around a detector and a landmark network of ours."""
    pytest.importorskip("insightface", reason="needs the package insightface")
    from insightface.app import FaceAnalysis
    from insightface.model_zoo.landmark import Landmark

    class Boxes:
        def prepare(self, context, **options):
            pass

        def detect(self, image, **options):
            assert image[..., :2].max() == 0  # BGR, and the spot is red
            found = 1 if image.any() else 0
            return np.array([[*BOX, 0.875]])[:found], None

    class Session:
        def set_providers(self, providers):
            pass

        def run(self, names, inputs):
            """The spot's place, by the number of the pixel, from -1 to 1 as the network gives it."""
            (blob,) = inputs.values()
            light = blob[0, 0] * 128 + 127.5  # red is first
            assert blob.shape == (1, 3, 192, 192) and light.max() > 200
            rows, columns = np.indices(light.shape)
            place = [(light * axis).sum() / light.sum() for axis in (columns, rows)]
            points = np.zeros((1103, 3), np.float32)
            points[-68:, :2] = np.array(place) / 96 - 1
            return [points.reshape(1, 3309)]

    def start(self, name, allowed_modules, providers):
        assert providers == ["CPUExecutionProvider"]
        network = object.__new__(Landmark)
        vars(network).update(
            session=Session(), input_name="data", output_names=["y"], input_size=(192, 192), lmk_dim=3,
            input_mean=127.5, input_std=128.0, lmk_num=68, require_pose=False, taskname="landmark_3d_68",
        )  # fmt: skip
        self.addons, self.det_model = {}, Boxes()
        known = {"detection": self.det_model, "landmark_3d_68": network}
        self.models = {key: known[key] for key in (["detection"] if name == "small" else allowed_modules)}

    monkeypatch.setattr(FaceAnalysis, "__init__", start)


def test_points_of_insightface_are_ours(insight):
    detect = insightface_detector()
    for point in spots():
        (face,) = detect(picture(*point))
        assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == torch.float32
        assert face.confidence == 0.875
        assert np.abs(face.landmarks.numpy() - point).max() < 0.1
    assert detect(Image.new("RGB", (400, 340))) == []


def test_a_model_pack_without_68_points_is_refused(insight):
    with pytest.raises(MissingPartError, match="small has no network of 68 landmarks"):
        insightface_detector("small")


@pytest.mark.parametrize("opened", [face_alignment_detector, insightface_detector])
def test_an_absent_package_is_a_sentence(opened, monkeypatch):
    for name in ("face_alignment", "insightface", "insightface.app"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingPartError, match=r"cannot be imported .*; pip install [a-z-]+$"):
        opened()


def test_weights_that_cannot_be_had_are_a_sentence(monkeypatch):
    package = pytest.importorskip("face_alignment", reason="needs the package face-alignment")

    def offline(self, *_, **__):
        raise OSError("<urlopen error no\nroute>")

    monkeypatch.setattr(package.FaceAlignment, "__init__", offline)
    with pytest.raises(MissingPartError, match=r"face-alignment cannot load its networks .*no route"):
        face_alignment_detector()
