"""FLAME's files, written here in their true format, come back as the head they were written from."""

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from flame_files import (
    flame_arrays,
    write_flame_2023,
    write_flame_open,
    write_landmarks,
    write_masks,
    write_template,
    write_texture,
)
from small_head import small_head, small_head_data

from facegpt.errors import HeadFileError
from facegpt.head.files import flame
from facegpt.head.files.flame import FlameOptions, load_flame, read_template
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters


@pytest.fixture
def folder(tmp_path):
    """A folder as a user of FLAME has it: the model and everything beside it."""
    write_flame_2023(tmp_path)
    for write in (write_landmarks, write_texture, write_masks, write_template):
        write(tmp_path)
    return tmp_path


SMALL_TEXTURE = FlameOptions(texture_size=32)


def test_the_whole_folder_gives_the_same_head(folder):
    ours, theirs = small_head(), HeadModel.load(folder / "generic_model.pkl", SMALL_TEXTURE)
    assert (theirs.layout.shape, theirs.layout.expression, theirs.layout.albedo) == (100, 50, 50)
    generator = torch.Generator().manual_seed(0)
    few = ours.mean_parameters(2, neck=True).replace(
        shape=torch.randn(2, 6, generator=generator),
        expression=torch.randn(2, 4, generator=generator),
        albedo=torch.randn(2, 3, generator=generator),
        pose=torch.randn(2, 6, generator=generator) * 0.3,
        neck=torch.randn(2, 3, generator=generator) * 0.3,
    )
    # the small head's components are the first of each block in the file; the others stay zero
    many = theirs.mean_parameters(2, neck=True).replace(pose=few.pose, neck=few.neck)
    for name in ("shape", "expression", "albedo"):
        getattr(many, name)[:, : getattr(few, name).shape[1]] = getattr(few, name)
    expected, found = ours(few), theirs(many)
    for name in ("vertices", "landmarks", "joints"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-6, rtol=0)
    ours_mesh, mesh = ours.mesh(few), theirs.mesh(many)
    torch.testing.assert_close(mesh.texture, ours_mesh.texture, atol=1e-5, rtol=0)  # RGB, 0..1
    torch.testing.assert_close(mesh.uv[mesh.uv_triangles], ours_mesh.uv[ours_mesh.uv_triangles])
    assert theirs.default_camera == pytest.approx(ours.default_camera)


def test_open_is_read_without_chumpy_and_known_by_its_key(tmp_path):
    data = load_flame(write_flame_open(tmp_path, "flame2023.pkl"))  # some zips name it so
    assert data.metadata["name"] == "FLAME 2023 Open"
    arrays = flame_arrays()
    np.testing.assert_allclose(data.shape_basis, arrays["shapedirs"][..., :100], rtol=1e-6)
    np.testing.assert_allclose(data.expression_basis, arrays["shapedirs"][..., 300:350], rtol=1e-6)
    np.testing.assert_allclose(data.joint_regressor, arrays["J_regressor"].toarray(), rtol=1e-6)
    assert data.parents.tolist() == [-1, 0, 1, 1, 1]


def test_open_says_how_many_columns_are_expression(tmp_path):
    about = {"n_expr": 60, "expr_components": "last_60"}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(flame_arrays() | {flame.OPEN_KEY: about}))
    data = load_flame(path, FlameOptions(shape=340, expression=60))
    np.testing.assert_allclose(data.expression_basis, flame_arrays()["shapedirs"][..., 340:], rtol=1e-6)


def test_a_release_is_known_by_its_hash(tmp_path, monkeypatch):
    path = write_flame_2023(tmp_path)
    assert load_flame(path).metadata["name"] == "FLAME (unknown release)"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(flame.RELEASES, digest, "FLAME 2020")
    metadata = load_flame(path).metadata
    assert metadata["name"] == "FLAME 2020" and metadata["sha256"] == digest
    assert str(tmp_path) not in str(metadata)  # nothing of the user's machine


def test_the_known_hashes_are_those_of_the_specification():
    assert {name: digest[:8] for digest, name in flame.RELEASES.items()} == {
        "FLAME 2020": "efcd14cc",
        "FLAME 2023": "8fb1af0d",
        "FLAME 2023 Open": "e75a0990",
    }
    assert all(len(digest) == 64 for digest in flame.RELEASES)


@pytest.mark.parametrize("numbers", [(300, 100), (10, 0), (0, 7)])
def test_component_numbers_can_be_chosen(tmp_path, numbers):
    data = load_flame(write_flame_2023(tmp_path), FlameOptions(shape=numbers[0], expression=numbers[1]))
    assert (data.shape_basis.shape[2], data.expression_basis.shape[2]) == numbers
    assert len(data.expression_names) == numbers[1]
    head = HeadModel(data)
    assert head().vertices.shape == (1, 306, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (FlameOptions(shape=301), "300 shape components, 301"),
        (FlameOptions(expression=101), "100 expression components, 101"),
        (FlameOptions(albedo=61), "do not give 61 components"),
        (FlameOptions(texture_size=48), "64 cannot be averaged to 48"),
    ],
)
def test_too_many_components_are_refused(folder, options, message):
    with pytest.raises(HeadFileError, match=message):
        load_flame(folder / "generic_model.pkl", options)


def test_the_model_alone_is_enough(tmp_path):
    head = HeadModel.load(write_flame_2023(tmp_path))
    assert head.layout.albedo == 0 and head().landmarks.shape == (1, 0, 3)
    assert head.mesh(head.mean_parameters()).colors is not None
    assert head.regions == {} and head.skin_triangles.all()


def test_companions_can_lie_elsewhere(tmp_path):
    for name in ("model", "other"):
        (tmp_path / name).mkdir()
    model = write_flame_2023(tmp_path / "model")
    landmarks = write_landmarks(tmp_path / "other").rename(tmp_path / "other" / "renamed.npy")
    head = HeadModel.load(model, FlameOptions(landmarks=landmarks))
    torch.testing.assert_close(head().landmarks, small_head()().landmarks, atol=1e-6, rtol=0)
    with pytest.raises(HeadFileError, match=r"gone\.npz does not exist"):
        load_flame(model, FlameOptions(texture=tmp_path / "gone.npz"))


def test_texture_alone_brings_its_own_coordinates(tmp_path):
    model = write_flame_2023(tmp_path)
    write_texture(tmp_path)
    data = load_flame(model, SMALL_TEXTURE)
    np.testing.assert_array_equal(data.uv_triangles, small_head_data().uv_triangles)
    np.testing.assert_allclose(data.texture_mean, small_head_data().texture_mean, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "landmarks"),
    [("albedoModel2020_FLAME_albedoPart.npz", False), ("flame_static_embedding_68.pkl", True)],
)
def test_files_of_other_projects_are_found_beside_the_model(tmp_path, name, landmarks):
    model, data = write_flame_2023(tmp_path), small_head_data()
    if landmarks:
        table = {"lmk_face_idx": data.landmark_triangles, "lmk_b_coords": data.landmark_barycentric}
        (tmp_path / name).write_bytes(pickle.dumps(table, protocol=2))
    else:
        linear = np.full((32, 32, 3), (0.1, 0.2, 0.4))
        part = {"MU": linear, "PC": np.zeros((32, 32, 3, 60)), "specMU": linear}
        np.savez(tmp_path / name, **part, vt=data.uv, ft=data.uv_triangles)
    head = HeadModel.load(model)
    assert head().landmarks.shape[1] == (68 if landmarks else 0)
    assert head.layout.albedo == (0 if landmarks else 50)


def test_masks_become_regions_with_eyes_and_ears_joined(folder):
    data, small = load_flame(folder / "generic_model.pkl", SMALL_TEXTURE), small_head_data()
    for name in ("face", "left_eyeball", "eyes", "lips"):
        np.testing.assert_array_equal(data.regions[name], small.regions[name])
    assert np.flatnonzero(data.regions["ears"]).tolist() == [1, 2, 3]


def test_masks_of_another_mesh_are_refused(folder):
    (folder / "FLAME_masks.pkl").write_bytes(pickle.dumps({"face": np.array([0, 306])}))
    with pytest.raises(HeadFileError, match=r"FLAME_masks\.pkl: face does not hold vertex numbers"):
        load_flame(folder / "generic_model.pkl", SMALL_TEXTURE)


def test_the_eyeballs_of_flames_own_mesh_are_known_without_masks():
    regions = flame._regions(None, 5023)
    assert regions["left_eyeball"][[3931, 4476]].all() and regions["right_eyeball"][[4477, 5022]].all()
    assert regions["left_eyeball"].sum() == regions["right_eyeball"].sum() == 546
    assert regions["eyes"].sum() == 2 * 546


def test_a_template_of_another_mesh_is_refused(folder):
    with pytest.raises(HeadFileError, match=r"head_template\.obj are not those of the model"):
        read_template(folder / "head_template.obj", small_head_data().triangles[::-1])
    (folder / "head_template.obj").write_text("v 0 0 0\nvt 0\n")
    with pytest.raises(HeadFileError, match=r"head_template\.obj is not a triangulated OBJ"):
        read_template(folder / "head_template.obj", small_head_data().triangles)


def test_a_pickle_of_something_else_is_named_with_what_it_lacks(tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps({"v_template": np.zeros((3, 3))}))
    with pytest.raises(HeadFileError, match="not a FLAME model: it has no f, shapedirs"):
        HeadModel.load(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(HeadFileError, match="not a FLAME model"):
        HeadModel.load(path)


def test_arrays_that_do_not_fit_name_the_file(tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(flame_arrays() | {"J_regressor": scipy.sparse.csc_matrix((5, 7))}))
    with pytest.raises(HeadFileError, match=r"generic_model\.pkl: .*joint_regressor has shape \(5, 7\)"):
        HeadModel.load(path)


class RunsACommand:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


def test_a_hostile_model_runs_nothing(folder):
    witness = folder / "witness"
    (folder / "generic_model.pkl").write_bytes(
        pickle.dumps(flame_arrays() | {"bs_type": RunsACommand(f"touch {witness}")})
    )
    with pytest.raises(HeadFileError, match=r"generic_model\.pkl asks for \w+\.system"):
        HeadModel.load(folder / "generic_model.pkl")
    assert not witness.exists()


def test_options_are_for_flame_only(tmp_path):
    save_head(small_head_data(), tmp_path / "head.npz")
    with pytest.raises(HeadFileError, match="only apply"):
        HeadModel.load(tmp_path / "head.npz", FlameOptions())


def test_a_converted_flame_keeps_its_id(folder):
    data = load_flame(folder / "generic_model.pkl", replace(SMALL_TEXTURE, shape=20, expression=10, albedo=5))
    save_head(data, folder / "flame.safetensors")
    converted = HeadModel.load(folder / "flame.safetensors")
    assert converted.id == HeadModel(data).id
    assert converted.data.metadata == data.metadata


def test_codes_of_deca_fit_the_default_layout(folder):
    head = HeadModel.load(folder / "generic_model.pkl", SMALL_TEXTURE)
    assert head.layout.total == 236
    code = torch.randn(1, 236, generator=torch.Generator().manual_seed(0)) * 0.1
    assert head(FaceParameters.from_vector(code, head.layout)).vertices.isfinite().all()


ODD = {
    "a number": 5,
    "no axis": np.zeros(()),
    "one axis": np.zeros(3),
    "empty": np.zeros((0,)),
    "no columns": np.zeros((2, 0)),
    "four axes": np.zeros((2, 5, 3, 2)),
    "a huge number": [10**30],
    "an empty list": [],
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("key", [*flame.MODEL_AXES, flame.OPEN_KEY])
def test_arrays_of_another_shape_are_refused_in_a_sentence(tmp_path, key, odd):
    value = {"n_expr": ODD[odd]} if key == flame.OPEN_KEY else ODD[odd]
    if (key, odd) in ((flame.OPEN_KEY, "a number"), (flame.OPEN_KEY, "no axis")):
        return  # these are numbers of components
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(flame_arrays() | {key: value}))
    with pytest.raises(HeadFileError, match=rf"odd\.pkl: {key}"):
        load_flame(tmp_path / "odd.pkl")
