"""Networks from `.tflite` files, against plain loops in the file's own order of axes."""

import json
import struct

import numpy as np
import pytest
import torch

from facegpt.errors import CheckpointError
from facegpt.perception import graph_network, tflite_file
from facegpt.perception.graph_network import Graph, GraphNetwork, cut, last_value
from facegpt.perception.tflite_network import read_network
from tests.tflite_writer import SAME, VALID, Model, Table, flatbuffer, window

RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def network(model: Model, *outputs: int) -> GraphNetwork:
    return GraphNetwork(*read_network(model.content(*outputs), "small.tflite"))


def run(model: Model, x: np.ndarray, *outputs: int) -> list[np.ndarray]:
    """The outputs for x in the file's order of axes, maps as (B,H,W,C)."""
    given = torch.from_numpy(x)
    made = network(model, *outputs)(given.permute(0, 3, 1, 2) if given.ndim == 4 else given)
    return [(y.permute(0, 2, 3, 1) if y.ndim == 4 else y).numpy() for y in made]


def windows(x: np.ndarray, size: int, stride: int, padding: int, fill: float):
    """Every window (B,size,size,C) with its place; "same" gives ceil(length / stride) places."""
    _, height, width, _ = x.shape
    counts, before = [], []
    for length in (height, width):
        count = -(-length // stride) if padding == SAME else (length - size) // stride + 1
        counts.append(count)
        before.append(max((count - 1) * stride + size - length, 0) // 2 if padding == SAME else 0)
    wide = np.pad(x, ((0, 0), (before[0], size), (before[1], size), (0, 0)), constant_values=fill)
    for i in range(counts[0]):
        for j in range(counts[1]):
            yield i, j, wide[:, i * stride : i * stride + size, j * stride : j * stride + size]


def gather(x: np.ndarray, size: int, stride: int, padding: int, fill: float, function) -> np.ndarray:
    places = {(i, j): function(part) for i, j, part in windows(x, size, stride, padding, fill)}
    rows, columns = (max(place[k] for place in places) + 1 for k in (0, 1))
    return np.stack([np.stack([places[i, j] for j in range(columns)], axis=1) for i in range(rows)], axis=1)


@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (2, 2), (5, 2), (1, 1)])
@pytest.mark.parametrize("height", [8, 7])
def test_convolution_pads_as_tensorflow_does(size, stride, padding, height):
    x, kernel, bias = random(2, height, 6, 3), random(4, size, size, 3), random(4)
    expected = gather(
        x, size, stride, padding, 0, lambda part: np.einsum("bhwc,ohwc->bo", part, kernel) + bias
    )
    model = Model((1, height, 6, 3))
    inputs = [0, model.constant(kernel), model.constant(bias)]
    output = model.add("CONV_2D", inputs, (1, *expected.shape[1:]), **window(padding, stride))
    np.testing.assert_allclose(run(model, x, output)[0], expected, atol=1e-5)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution_has_kernels_per_channel(multiplier):
    x, kernel, bias = random(2, 6, 6, 3), random(1, 3, 3, 3 * multiplier), random(3 * multiplier)
    each = np.repeat(np.arange(3), multiplier)
    expected = gather(x, 3, 2, SAME, 0, lambda part: (part[..., each] * kernel).sum(axis=(1, 2)) + bias)
    model = Model((1, 6, 6, 3))
    more = {"multiplier": (3, "i", multiplier)}
    inputs = [0, model.constant(kernel), model.constant(bias)]
    output = model.add("DEPTHWISE_CONV_2D", inputs, (1, *expected.shape[1:]), **window(SAME, 2, **more))
    np.testing.assert_allclose(run(model, x, output)[0], expected, atol=1e-5)


@pytest.mark.parametrize("height", [6, 5])
def test_max_pool_sees_nothing_beyond_the_edge(height):
    x = random(2, height, 6, 3) - 10  # a padding of zeros would win
    expected = gather(x, 2, 2, SAME, -np.inf, lambda part: part.max(axis=(1, 2)))
    model = Model((1, height, 6, 3))
    more = {"filter_w": (3, "i", 2), "filter_h": (4, "i", 2)}
    output = model.add("MAX_POOL_2D", [0], (1, *expected.shape[1:]), **window(SAME, 2, **more))
    np.testing.assert_array_equal(run(model, x, output)[0], expected)


def test_channels_are_padded_and_prelu_has_a_slope_for_each():
    x, slope = random(2, 4, 4, 2), random(1, 1, 5)
    padded = np.concatenate([x, np.zeros((2, 4, 4, 3), np.float32)], axis=3)
    model = Model((1, 4, 4, 2))
    amounts = model.constant([[0, 0], [0, 0], [0, 0], [0, 3]], "i4")
    wide = model.add("PAD", [0, amounts], (1, 4, 4, 5))
    output = model.add("PRELU", [wide, model.constant(slope)], (1, 4, 4, 5))
    expected = np.where(padded > 0, padded, padded * slope)
    np.testing.assert_allclose(run(model, x, output)[0], expected, rtol=1e-6)


def test_padding_and_concatenation_along_rows_and_reshape_count_channels_last():
    x, kernel = random(2, 3, 4, 2), np.eye(2, dtype=np.float32).reshape(2, 1, 1, 2)
    model = Model((1, 3, 4, 2))
    taller = model.add("PAD", [0, model.constant([[0, 0], [1, 0], [0, 0], [0, 0]], "i4")], (1, 4, 4, 2))
    same = model.add("CONV_2D", [taller, model.constant(kernel), -1], (1, 4, 4, 2), **window(SAME, 1))
    both = model.add("CONCATENATION", [same, taller], (1, 8, 4, 2), axis=(0, "i", 1))
    flat = model.add("RESHAPE", [both, model.constant([1, 64], "i4")], (1, 64))
    deep = model.add("RESHAPE", [flat, model.constant([1, 2, 2, 16], "i4")], (1, 2, 2, 16))
    expected = np.concatenate([np.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))] * 2, axis=1)
    results = run(model, x, flat, deep)
    np.testing.assert_array_equal(results[0], expected.reshape(2, 64))
    np.testing.assert_array_equal(results[1], expected.reshape(2, 2, 2, 16))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 6, 3)])
def test_arithmetic_broadcasts_constants_as_the_file_has_them(shape):
    x, row = random(*shape), random(shape[-1])
    model = Model((1, *shape[1:]))
    one, half = model.constant(row), model.constant(np.float32(0.5))
    steps = {
        "ADD": (lambda v: v + row, [one]), "SUB": (lambda v: v - row, [one]),
        "MUL": (lambda v: v * row, [one]), "DIV": (lambda v: v / row, [one]),
        "SQUARED_DIFFERENCE": (lambda v: (v - 0.5) ** 2, [half]), "SQRT": (np.sqrt, []),
        "NEG": (np.negative, []), "LOGISTIC": (lambda v: 1 / (1 + np.exp(-v)), []),
        "RSQRT": (lambda v: v**-0.5, []), "RELU": (lambda v: np.maximum(v, 0), []),
    }  # fmt: skip
    value, expected = 0, x
    for op, (function, constants) in steps.items():
        value, expected = model.add(op, [value, *constants], (1, *shape[1:])), function(expected)
    np.testing.assert_allclose(run(model, x, value)[0], expected, rtol=2e-4)


def test_means_transposition_and_slices_take_the_files_axes():
    x = random(2, 3, 4, 5)
    model = Model((1, 3, 4, 5))
    keep = {"keep": (0, "b", 1)}
    mean = model.add("MEAN", [0, model.constant([1, -1], "i4")], (1, 1, 4, 1), **keep)
    total = model.add("SUM", [0, model.constant([3], "i4")], (1, 3, 4, 1), **keep)
    turned = model.add("TRANSPOSE", [0, model.constant([0, 3, 1, 2], "i4")], (1, 5, 3, 4))
    bounds = [model.constant(v, "i4") for v in ([0, 1, 0, -3], [1, 3, 9, 5], [1, 1, 1, 1])]
    part = model.add("STRIDED_SLICE", [0, *bounds], (1, 2, 4, 3), end=(1, "i", 0b0101))
    results = run(model, x, mean, total, turned, part)
    expected = (
        x.mean((1, 3), keepdims=True),
        x.sum(3, keepdims=True),
        x.transpose(0, 3, 1, 2),
        x[:, 1:3, :, 2:],
    )
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-6)


def test_the_batch_stays_where_the_file_takes_its_only_item_out():
    x = random(3, 7)
    model = Model((1, 7))
    bounds = [model.constant(v, "i4") for v in ([0, 2], [1, 5], [1, 1])]
    output = model.add("STRIDED_SLICE", [0, *bounds], (3,), shrink=(4, "i", 1))
    np.testing.assert_array_equal(run(model, x, output)[0], x[:, 2:5])


def test_weights_in_half_precision_are_taken_as_they_are():
    kernel = random(2, 1, 1, 3).astype(np.float16)
    model = Model((1, 2, 2, 3))
    full = model.add("DEQUANTIZE", [model.constant(kernel, "f2")], kernel.shape)
    output = model.add("CONV_2D", [0, full], (1, 2, 2, 2), **window(SAME, 1))
    (weight,) = network(model, output).parameters()
    assert not weight.requires_grad
    np.testing.assert_array_equal(weight.numpy(), kernel.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize(("number", "top"), [(1, np.inf), (3, 6)])
def test_activations_within_other_operations_come_after_them(number, top):
    x = 10 * random(2, 2, 2, 3)
    model = Model((1, 2, 2, 3))
    output = model.add("ADD", [0, 0], (1, 2, 2, 3), activation=(0, "b", number))
    np.testing.assert_allclose(run(model, x, output)[0], np.clip(2 * x, 0, top))


def small() -> tuple[Model, int]:
    """conv (stride 2) -> PReLU -> shortcut -> two channels."""
    model = Model((1, 8, 8, 3))
    rng = np.random.default_rng(1)
    first = [model.constant(rng.standard_normal(shape)) for shape in ((4, 3, 3, 3), (4,))]
    half = model.add("CONV_2D", [0, *first], (1, 4, 4, 4), **window(SAME, 2))
    bent = model.add("PRELU", [half, model.constant(rng.standard_normal((1, 1, 4)))], (1, 4, 4, 4))
    both = model.add("ADD", [half, bent], (1, 4, 4, 4))
    last = model.constant(rng.standard_normal((2, 1, 1, 4)))
    return model, model.add("CONV_2D", [both, last], (1, 4, 4, 2), **window(SAME, 1))


def test_a_graph_survives_json_and_its_weights_are_a_state_dict():
    model, output = small()
    graph, weights = read_network(model.content(output), "small.tflite")
    whole = GraphNetwork(graph, weights)
    again = GraphNetwork(Graph.from_dict(json.loads(json.dumps(graph.to_dict()))))
    again.load_state_dict(whole.state_dict())
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(whole(x)[0], again(x)[0])
    assert whole(x)[0].shape == (2, 2, 4, 4)


def test_a_graph_is_cut_at_its_last_value_of_a_shape():
    model, output = small()
    graph, weights = read_network(model.content(output), "small.tflite")
    trunk = cut(graph, last_value(graph, (4, 4, 4)))
    assert [step.op for step in trunk.steps] == ["conv", "prelu", "add"]
    assert len(trunk.weights) == len(graph.weights) - 1
    x = torch.rand(2, 3, 8, 8)
    (features,) = GraphNetwork(trunk, weights)(x)
    kernel = list(weights.values())[-1]
    torch.testing.assert_close(torch.einsum("bchw,oc->bohw", features, kernel[..., 0, 0]),
                               GraphNetwork(graph, weights)(x)[0])  # fmt: skip
    with pytest.raises(CheckpointError, match="no step of the network makes"):
        cut(graph, "v99")
    with pytest.raises(CheckpointError, match="no value of shape"):
        last_value(graph, (1, 2, 3))


def test_a_network_is_differentiable_in_its_input():
    model, output = small()
    whole = network(model, output).double()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: whole(image)[0], (x,))


def changed(**changes) -> dict:
    model, output = small()
    graph, _ = read_network(model.content(output), "small.tflite")
    return {**graph.to_dict(), **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"steps": [{"op": "exec", "inputs": ["v0"], "output": "v1", "options": {}}]},
            "exec are not supported",
        ),
        ({"outputs": ["v99"]}, "output 'v99'"),
        ({"weights": {"forward": [1]}}, "w12_kernel"),
        ({"weights": {"w1_kernel": [1 << 30]}}, "weights"),
        ({"shape": [3, 1 << 13, 1 << 13]}, "numbers for one input"),
        ({"steps": 3}, "no graph of a network"),
        ({"color": 1}, "no graph of a network"),
        ({"steps": [{"op": "add", "inputs": ["v7", "v0"], "output": "v1", "options": {}}]}, "fails"),
        ({"steps": [{"op": "negate", "inputs": ["v0"], "output": "v0", "options": {}}]}, "twice"),
    ],
)
def test_graphs_of_strangers_are_refused_in_a_sentence(changes, said):
    with pytest.raises(CheckpointError, match=said):
        Graph.from_dict(changed(**changes))


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(graph_network, "MOST_STEPS", 2)
    with pytest.raises(CheckpointError, match="2 is the limit"):
        Graph.from_dict(changed())


def test_broken_files_are_refused_in_a_sentence():
    model, output = small()
    content = model.content(output)
    for end in range(0, len(content), 7):
        with pytest.raises(CheckpointError, match=r"small\.tflite: "):
            read_network(content[:end], "small.tflite")


def test_damaged_files_are_read_or_refused_but_nothing_else():
    model, output = small()
    content, rng = model.content(output), np.random.default_rng(3)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for place in rng.integers(8, len(content), size=3):
            damaged[place] = rng.choice([0, 1, 127, 255, rng.integers(256)])
        try:
            GraphNetwork(*read_network(bytes(damaged), "small.tflite"))
        except CheckpointError:
            refused += 1
    assert 0 < refused < 400


def test_operations_that_are_not_known_are_named():
    model = Model((1, 4))
    output = model.add("SOFTMAX", [0], (1, 4))
    with pytest.raises(CheckpointError, match="operation number 25 is not supported"):
        read_network(model.content(output), "small.tflite")


def test_a_buffer_under_many_tensors_is_refused():
    model = Model((1, 4))
    big = model.constant(np.zeros(4096))
    for _ in range(50):
        model.tensors.append(Table(dict(model.tensors[big].fields)))
    output = model.add("NEG", [0], (1, 4))
    with pytest.raises(CheckpointError, match="more numbers than the file"):
        read_network(model.content(output), "small.tflite")


def test_announced_lengths_are_not_believed():
    content = bytearray(flatbuffer(Table({1: [Table()], 2: [Table()], 4: [Table()]})))
    for place in range(8, len(content) - 4, 4):
        hostile = bytearray(content)
        struct.pack_into("<I", hostile, place, 0x7FFFFFFF)
        with pytest.raises(CheckpointError):
            read_network(bytes(hostile), "small.tflite")


def test_other_and_too_large_files_are_refused(monkeypatch):
    with pytest.raises(CheckpointError, match="the mark TFL3 is missing"):
        read_network(b"GIF89a........", "a.gif")
    monkeypatch.setattr(tflite_file, "LARGEST_FILE", 10)
    with pytest.raises(CheckpointError, match="10 is the limit"):
        read_network(bytes(11), "big.tflite")
