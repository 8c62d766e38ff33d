"""Recogniser files of strangers: refused in a sentence, before they take memory or run anything."""

import zipfile
from itertools import pairwise

import numpy as np
import pytest
import torch
from protobuf_writer import declared, message, node, weight
from safetensors.torch import save_file

from facegpt.errors import CheckpointError
from facegpt.perception import onnx_file, onnx_network, recognizer
from facegpt.perception.iresnet import IResNet
from facegpt.perception.recognizer import load_recognizer


def onnx(path, nodes, shape=(0, 3, 112, 112), output="y", more=()):
    """A network over one convolution weight "w" (2,3,112,112)."""
    graph = message(
        *((1, n) for n in nodes),
        (5, weight("w", np.full((2, 3, 112, 112), 0.01))),
        (11, declared("x", *shape)),
        (12, declared(output)),
        *more,
    )
    path.write_bytes(message((7, graph)))
    return path


CONV = node("Conv", ["x", "w"], ["h"], strides=[1, 1], pads=[0, 0, 0, 0])
FLAT = node("Flatten", ["h"], ["y"])


def test_the_smallest_network_written_by_hand_is_read(tmp_path):
    network = load_recognizer(onnx(tmp_path / "good.onnx", [CONV, FLAT]))
    features = network(torch.rand(4, 3, 112, 112))
    torch.testing.assert_close(features.abs(), torch.full((4, 2), 0.5**0.5))


PADDED = {"strides": [1, 1], "pads": [12000] * 4}


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ([node("Conv", ["x", "w"], ["h"], **PADDED), FLAT], {}, r"padding .* 134217728 is the limit"),
        ([node("Conv", ["x", "w"], ["h"], **PADDED | {"strides": [24000] * 2}), FLAT], {}, "is the limit"),
        ([node("Conv", ["x", "w"], ["h"], pads=[1])], {}, "cannot be run"),
        ([node("Conv", ["x", "w"], ["h"], strides=[0, 0]), FLAT], {}, "cannot be run"),
        ([CONV, node("Flatten", ["nobody"], ["y"])], {}, "KeyError: 'nobody'"),
        ([CONV, FLAT], {"output": "nobody"}, "KeyError: 'nobody'"),
        ([CONV, node("Flatten", ["h"], [])], {}, "IndexError"),
        ([CONV, node("Flatten", [], ["y"])], {}, "TypeError"),
        ([CONV, FLAT, FLAT], {}, "assigned twice"),
        ([CONV, node("Identity", ["h"], ["y"])], {}, r"\(1, 2, 1, 1\) instead of one row of features"),
        ([CONV, FLAT], {"shape": (1, 3, 128, 128)}, r"reads images \[3, 128, 128\], aligned faces are"),
        ([CONV, FLAT], {"shape": (1, 1, 112, 112)}, r"reads images \[1, 112, 112\]"),
    ],
)
def test_networks_that_cannot_see_a_face_are_refused_unrun(tmp_path, nodes, options, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_recognizer(onnx(tmp_path / "bad.onnx", nodes, **options))
    assert "bad.onnx" in str(caught.value)


def test_many_values_that_each_fit_are_refused_together(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_network, "MOST_VALUES", 100_000)
    names = ["x", *(f"h{k}" for k in range(9))]
    copies = [node("Relu", [a], [b]) for a, b in pairwise(names)]
    with pytest.raises(CheckpointError, match="it makes 338692 numbers per face, 100000 is the limit"):
        load_recognizer(onnx(tmp_path / "many.onnx", [*copies, CONV, FLAT]))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ((1, b""), "more than 100000 fields"),
        ((5, message((1, 1), (2, 7), (7, b"\x01" * 200_000), (8, "ints"))), "more than 100000 numbers"),
        ((5, message((1, 1), (2, 1), (8, "elsewhere"), (13, b""))), "lie in another file"),
        ((5, message((1, 1 << 40), (2, 1), (8, "long"), (9, b"\0\0\0\0"))), "not a whole ONNX file"),
    ],
)
def test_fields_that_unpack_to_much_more_are_refused(tmp_path, field, message):
    more = [field] * (200_000 if field == (1, b"") else 1)
    with pytest.raises(CheckpointError, match=message):
        load_recognizer(onnx(tmp_path / "bomb.onnx", [CONV, FLAT], more=more))


@pytest.mark.parametrize("suffix", [".onnx", ".pth", ".safetensors"])
def test_a_huge_file_is_refused_before_it_is_read(tmp_path, suffix):
    path = tmp_path / f"huge{suffix}"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)  # sparse: it takes no space on disk
    with pytest.raises(CheckpointError, match=r"huge.*1073741825 bytes, 1073741824 is the limit"):
        load_recognizer(path)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused_unread(tmp_path, monkeypatch):
    torch.save({"weight": torch.zeros(10)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as source:
        entries = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in entries.items():
            bomb.writestr(name, bytes(1 << 24) if name.endswith("data/0") else content)
    monkeypatch.setattr(recognizer.torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(CheckpointError, match=r"bomb\.pth: \d{5} bytes would unpack to 1677\d{4}"):
        load_recognizer(tmp_path / "bomb.pth")


def test_weights_that_repeat_one_number_by_their_strides_are_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(1).half().expand(1 << 20, 1 << 20)}, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match=r"wide\.pth: 1099511627776 numbers"):
        load_recognizer(tmp_path / "wide.pth")


def test_a_block_number_of_a_billion_builds_no_network(tmp_path):
    state = {f"layer{k}.{1_000_000_000 if k == 4 else 0}.conv1.weight": torch.zeros(1) for k in (1, 2, 3, 4)}
    save_file(state, tmp_path / "deep.safetensors")
    with pytest.raises(CheckpointError, match=r"1000000004 blocks in 4 tensors"):
        load_recognizer(tmp_path / "deep.safetensors")


@pytest.mark.parametrize("suffix", [".onnx", ".pth", ".safetensors"])
def test_damaged_files_are_refused_in_a_sentence_or_read(tmp_path, suffix):
    path = tmp_path / f"face{suffix}"
    if suffix == ".onnx":
        onnx(path, [CONV, FLAT])
    else:
        state = IResNet((1, 1, 1, 1), (2, 2, 2, 2), 2).state_dict()
        torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    ends = 400 if suffix == ".onnx" else 3000  # where the structure is; in between are numbers
    for _ in range(60):
        data = bytearray(whole)
        for place in random.integers(0, 2 * ends, 3):
            data[place if place < ends else place - 2 * ends] = random.integers(256)
        path.write_bytes(data)
        try:
            load_recognizer(path)
        except CheckpointError as error:
            assert path.name in str(error)


def test_the_limits_leave_room_for_the_largest_arcface_network():
    with torch.device("meta"):
        network = IResNet((6, 26, 60, 6)).eval()  # IResNet-200
        values: list[int] = []
        for module in network.modules():
            module.register_forward_hook(lambda module, arguments, output: values.append(output.numel()))
        network(torch.empty(1, *onnx_network.FACE_SHAPE))
    assert sum(values) < onnx_network.MOST_VALUES
    assert 2 * sum(p.numel() for p in network.parameters()) < recognizer.MOST_WEIGHTS
    assert 5 * len(values) < onnx_file.MOST_FIELDS
