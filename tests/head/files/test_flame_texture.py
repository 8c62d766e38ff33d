"""Texture models come back as display-coded RGB, read without holding more than what is kept."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from facegpt.errors import HeadFileError
from facegpt.head.files import flame_texture
from facegpt.head.files.flame_texture import read_texture, srgb, srgb_slope


def random_model(side=8, components=5, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(0, 255, (side, side, 3)), random.normal(size=(side, side, 3, components)) * 9


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_blocks_are_averaged_channels_turned_and_components_cut(tmp_path, order, dtype, save):
    mean, basis = (np.asarray(a, dtype=dtype, order=order) for a in random_model())
    save(tmp_path / "t.npz", mean=mean, tex_dir=basis)
    found = read_texture(tmp_path / "t.npz", 3, size=4, with_uv=False)
    for row, column in ((0, 0), (1, 3), (3, 2)):
        block = np.s_[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(
            found["texture_mean"][row, column], mean[block].mean((0, 1))[::-1] / 255, rtol=1e-5
        )
        np.testing.assert_allclose(
            found["texture_basis"][row, column],
            basis[block].mean((0, 1))[::-1, :3] / 255,
            rtol=1e-4,
            atol=1e-6,
        )
    assert found["texture_basis"].shape == (4, 4, 3, 3)


def test_flattened_arrays_are_understood(tmp_path):
    mean, basis = random_model()
    np.savez(tmp_path / "t.npz", mean=mean.reshape(-1), tex_dir=basis.reshape(-1, 5))
    found = read_texture(tmp_path / "t.npz", 5, size=8, with_uv=False)
    np.testing.assert_allclose(found["texture_mean"], mean[:, :, ::-1] / 255, rtol=1e-5)
    np.testing.assert_allclose(found["texture_basis"], basis[:, :, ::-1] / 255, rtol=1e-5)


def test_the_albedo_of_bfm_is_read_in_its_own_range(tmp_path):
    np.savez(tmp_path / "t.npz", MU=np.full((4, 4, 3), (0.1, 0.2, 0.3)), PC=np.ones((4, 4, 3, 5)) * 0.01)
    texture = read_texture(tmp_path / "t.npz", 3, size=4, with_uv=False)
    np.testing.assert_allclose(texture["texture_mean"][1, 2], [0.3, 0.2, 0.1], rtol=1e-6)


@pytest.mark.parametrize("blue_first", [True, False])
def test_linear_albedo_becomes_srgb_and_its_specular_part_is_left_out(tmp_path, blue_first):
    skin, change = np.array([0.45, 0.24, 0.16]), np.array([0.02, 0.01, 0.005])  # red, green, blue; linear
    turn = slice(None, None, -1) if blue_first else slice(None)
    mean, basis = np.tile(skin[turn], (4, 4, 1)), np.tile(change[turn], (4, 4, 1))[..., None]
    np.savez(tmp_path / "a.npz", MU=mean, PC=basis, specMU=mean * 9, specPC=basis)
    found = read_texture(tmp_path / "a.npz", 1, size=2, with_uv=False)
    np.testing.assert_allclose(found["texture_mean"][1, 1], 1.055 * skin ** (1 / 2.4) - 0.055, rtol=1e-5)
    coded = found["texture_mean"][0, 0] + 0.1 * found["texture_basis"][0, 0, :, 0]
    np.testing.assert_allclose(coded, 1.055 * (skin + 0.1 * change) ** (1 / 2.4) - 0.055, atol=1e-5)


def test_the_slope_of_srgb_is_its_derivative():
    x = np.linspace(-0.01, 1, 1001)
    x = x[np.abs(x - 0.0031308) > 1e-3]
    numeric = (srgb(x + 1e-6) - srgb(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(srgb_slope(x)[x > 1e-3], numeric[x > 1e-3], rtol=1e-4)
    assert np.isfinite(srgb_slope(x)).all() and srgb_slope(np.array([-1.0]))[0] == 12.92


def test_memory_holds_little_more_than_what_is_kept(tmp_path):
    side, components = 64, 100
    np.savez(
        tmp_path / "t.npz", mean=np.zeros((side, side, 3)), tex_dir=np.zeros((side, side, 3, components))
    )
    whole = 3 * side**2 * components * 8
    tracemalloc.start()
    read_texture(tmp_path / "t.npz", 10, size=32, with_uv=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * whole  # np.load would take it all, twice while averaging


def rewrite(path, shape=None, keep=1.0):
    """Lie about the size of tex_dir, or cut its data."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    raw = members["tex_dir.npy"]
    if shape is not None:
        header = raw[: raw.index(b"\n") + 1]
        start = header.index(b"'shape': (") + len(b"'shape': ")
        stop = header.index(b")", start) + 1
        body = header[10:start] + shape.encode() + header[stop:-1].rstrip() + b" "
        raw = header[:8] + (len(body) + 1).to_bytes(2, "little") + body + b"\n" + raw[len(header) :]
    members["tex_dir.npy"] = raw[: int(len(raw) * keep)]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_files_that_lie_about_their_size_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "t.npz"
    mean, basis = random_model()
    np.savez(path, mean=mean, tex_dir=basis)
    rewrite(path, shape="(800000, 800000, 3, 5)")
    with pytest.raises(HeadFileError, match=r"t\.npz: tex_dir asks for 76800000000000 bytes"):
        read_texture(path, 3, size=4, with_uv=False)
    np.savez(path, mean=mean, tex_dir=basis)
    rewrite(path, keep=0.5)
    with pytest.raises(HeadFileError, match=r"t\.npz: tex_dir asks for"):
        read_texture(path, 3, size=4, with_uv=False)
    np.savez_compressed(path, mean=mean, tex_dir=np.zeros((8, 8, 3, 5000)))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(flame_texture, "MAX_UNPACKED", 100_000)
    with pytest.raises(HeadFileError, match=r"t\.npz: tex_dir would take 7680128 bytes unpacked"):
        read_texture(path, 3, size=4, with_uv=False)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "not a FLAME texture: it holds x"),
        ({"mean": np.zeros((4, 4, 3)), "tex_dir": np.zeros((4, 4, 3, 2))}, "do not give 3 components"),
        ({"mean": np.zeros((4, 5, 3)), "tex_dir": np.zeros((4, 5, 3, 4))}, "do not give 3 components"),
        ({"mean": np.zeros((4, 4, 3)), "tex_dir": np.zeros((4, 3, 3, 4))}, "do not give 3 components"),
        ({"mean": np.zeros(()), "tex_dir": np.zeros(())}, "do not give 3 components"),
        ({"mean": np.array({}, dtype=object), "tex_dir": np.zeros(3)}, "holds object, not plain numbers"),
        ({"mean": np.zeros((6, 6, 3)), "tex_dir": np.zeros((6, 6, 3, 4))}, "6 cannot be averaged to 4"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(HeadFileError, match=rf"t\.npz.*{message}"):
        read_texture(tmp_path / "t.npz", 3, size=4, with_uv=False)


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"hello")
    with pytest.raises(HeadFileError, match=r"t\.npz is not a FLAME texture"):
        read_texture(tmp_path / "t.npz", 3, size=4, with_uv=False)


def test_coordinates_must_come_from_somewhere(tmp_path):
    mean, basis = random_model()
    np.savez(tmp_path / "t.npz", mean=mean, tex_dir=basis)
    with pytest.raises(HeadFileError, match="no texture coordinates; put head_template"):
        read_texture(tmp_path / "t.npz", 3, size=4, with_uv=True)
    np.savez(tmp_path / "t.npz", mean=mean, tex_dir=basis, vt=np.ones((7, 2)), ft=np.zeros((5, 3), np.int32))
    found = read_texture(tmp_path / "t.npz", 3, size=4, with_uv=True)
    assert found["uv"].shape == (7, 2) and found["uv_triangles"].shape == (5, 3)
