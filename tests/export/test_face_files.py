"""Files of face parameters come back as they were; others are refused in a sentence."""

import json

import numpy as np
import pytest
import torch
from small_head import small_head

from facegpt.errors import SampleError
from facegpt.export.face_files import read_faces, write_faces


def faces(head, batch, **extra):
    layout = head.mean_parameters(batch, **extra).layout
    vector = torch.randn(batch, layout.total, generator=torch.Generator().manual_seed(0))
    return type(head.mean_parameters()).from_vector(vector, layout)


@pytest.mark.parametrize("extra", [{}, {"neck": True}, {"neck": True, "eyes": True}])
@pytest.mark.parametrize(("name", "batch"), [("face.json", 1), ("faces.npz", 1), ("faces.npz", 3)])
def test_a_round_trip_keeps_every_number(tmp_path, name, batch, extra):
    head = small_head()
    written = faces(head, batch, **extra)
    write_faces(tmp_path / name, written, head, {"note": 1})
    read = read_faces(tmp_path / name)
    assert read.head_id == head.id and read.parameters.layout == written.layout
    torch.testing.assert_close(read.parameters.to_vector(), written.to_vector(), atol=0, rtol=0)


def test_the_file_of_a_fit_names_its_head_another_way(tmp_path):
    head = small_head()
    write_faces(tmp_path / "x.json", faces(head, 1), head)
    content = json.loads((tmp_path / "x.json").read_text())
    content["head"] = {"id": content.pop("head_id"), "name": "x"}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read_faces(tmp_path / "x.json").head_id == head.id


def test_several_faces_do_not_fit_into_a_json(tmp_path):
    head = small_head()
    with pytest.raises(SampleError, match="cannot hold 2 faces"):
        write_faces(tmp_path / "x.json", faces(head, 2), head)
    assert not list(tmp_path.iterdir())


ROW = {"index": 0, "group": "pose", "name": "x", "unit": "y", "value": 1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a file of face parameters"),
        ('{"coefficients": [], "head_id": 3}', "the head's id is 3"),
        ("[1]", "not a file of face parameters"),
        ('{"coefficients": [], "head": [1]}', "not a file of face parameters"),
        ("[" * 100_000, "not a file of face parameters"),
        ('{"coefficients": 3}', "not a file of face parameters"),
        (json.dumps({"coefficients": [ROW | {"group": "hat"}]}), "unknown group hat"),
        (json.dumps({"coefficients": [ROW] * 6}), "holds no camera, lighting"),
        (json.dumps({"coefficients": [ROW | {"value": "much"}]}), "not a file of face parameters"),
        (json.dumps({"coefficients": [ROW | {"value": 10**400}]}), "not a file of face parameters"),
        ('{"coefficients": ' + "1" * 5000 + "}", "not a file of face parameters"),
        (" " * (1 << 24) + "{}", "larger than 16777216 bytes"),
    ],
)
def test_other_json_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(SampleError, match=message):
        read_faces(tmp_path / "x.json")


def test_wrong_sizes_and_numbers_are_named(tmp_path):
    head = small_head()
    write_faces(tmp_path / "x.npz", faces(head, 2), head)
    arrays = dict(np.load(tmp_path / "x.npz"))
    for change, message in (
        ({"pose": arrays["pose"][:, :5]}, r"pose has shape \(2, 5\)"),
        ({"shape": arrays["shape"][:1]}, r"shape has shape \(1, 6\)"),
        ({"shape": arrays["shape"] * np.nan}, "shape has values that are not finite"),
        ({"shape": arrays["shape"].astype(np.float64) * 1e300}, "shape has values that are not finite"),
        ({"shape": np.array({}, dtype=object)}, "not a file of face parameters"),
    ):
        np.savez(tmp_path / "bad.npz", **(arrays | change))
        with pytest.raises(SampleError, match=message):
            read_faces(tmp_path / "bad.npz")
    with pytest.raises(SampleError, match="there is no file"):
        read_faces(tmp_path / "gone.json")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(SampleError, match=r"end in \.json or \.npz"):
        read_faces(tmp_path / "x.txt")


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    from facegpt.export import face_files

    np.savez_compressed(tmp_path / "bomb.npz", pose=np.zeros((1_000_000, 6)))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    monkeypatch.setattr(face_files, "MAX_BYTES", 1 << 20)
    with pytest.raises(SampleError, match=r"bomb\.npz .* bytes unpacked, more than 1048576; not read"):
        read_faces(tmp_path / "bomb.npz")
