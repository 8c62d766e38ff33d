"""The recipe from face file and two heads to a face file, and its refusals."""

import json
from dataclasses import replace

import numpy as np
import torch
from small_head import small_head, small_head_data

from facegpt.commands.convert import main
from facegpt.config import run
from facegpt.export.face_files import read_faces, write_faces
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel


def prepare(folder):
    """A face of the small head, the head, and another version of it with its components in another order."""
    data = small_head_data()
    save_head(data, folder / "old.npz")
    save_head(replace(data, shape_basis=data.shape_basis[..., ::-1], shape_names=[]), folder / "new.npz")
    head = small_head()
    face = head.mean_parameters(neck=True)
    face.shape[:] = torch.tensor([0.5, -0.4, 0.3, 0.2, 0.1, 0.9])
    face.neck[:, 1] = 0.2
    write_faces(folder / "face.json", face, head)
    return face


def convert(folder, *more):
    paths = {"--from": "old.npz", "--to": "new.npz", "--out": "converted.json"}
    words = [word for option, name in paths.items() for word in (option, str(folder / name))]
    return run(main, [str(folder / "face.json"), *words, *more])


def test_a_face_becomes_one_of_the_other_head(tmp_path, capsys):
    face = prepare(tmp_path)
    assert convert(tmp_path) == 0
    said = capsys.readouterr().out
    assert "every vertex" in said and "face 0: residual 0.000 mm" in said
    read = read_faces(tmp_path / "converted.json")
    assert read.head_id == HeadModel.load(tmp_path / "new.npz").id != small_head().id
    np.testing.assert_allclose(read.parameters.shape, face.shape.flip(1), atol=1e-4)
    np.testing.assert_allclose(read.parameters.neck, face.neck, atol=1e-4)
    content = json.loads((tmp_path / "converted.json").read_text())
    assert content["converted_from"] == {"file": "face.json", "head_id": small_head().id}
    assert content["residual_mm"] < 1e-3


def test_the_wrong_source_head_is_refused(tmp_path, capsys):
    prepare(tmp_path)
    assert convert(tmp_path, "--from", str(tmp_path / "new.npz")) == 1
    assert "give the head it was made with as --from" in capsys.readouterr().err
    assert not (tmp_path / "converted.json").exists()


def test_a_missing_file_is_a_sentence(tmp_path, capsys):
    assert convert(tmp_path) == 1
    assert "error: there is no file" in capsys.readouterr().err
