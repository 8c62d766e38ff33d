"""Translate a `.tflite` file into a graph of torch operations and its weights.

TensorFlow Lite keeps maps as (B,H,W,C), torch as (B,C,H,W): values of four axes change their order here,
others keep it. The file's batch of one becomes any batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from facegpt.errors import CheckpointError
from facegpt.perception.graph_network import Graph, Step, check_graph
from facegpt.perception.tflite_file import TfliteModel, TfliteOperator, read_tflite

_TO_TORCH = (0, 3, 1, 2)  # axes of (B,H,W,C) in torch's order
_FROM_TORCH = (0, 2, 3, 1)
_ACTIVATIONS = {1: "relu", 3: "relu6"}  # ActivationFunctionType of schema.fbs
_PAIRS = {
    "ADD": "add",
    "SUB": "subtract",
    "MUL": "multiply",
    "DIV": "divide",
    "SQUARED_DIFFERENCE": "squared_difference",
}
_SINGLES = {"LOGISTIC": "sigmoid", "NEG": "negate", "RELU": "relu", "RSQRT": "rsqrt", "SQRT": "sqrt"}


def read_network(content: bytes, name: str) -> tuple[Graph, dict[str, Tensor]]:
    """The graph of a `.tflite` file and its weights (float32; half precision in the file is exact in it).

    Names: `v12` is the value of the file's tensor 12, `w12_kernel`, `w12_vector` and `w12_map` are weights by
    their use. Outputs of four axes come out as (B,C,H,W).
    Raises CheckpointError, naming `name`, for a broken file or a network that is not supported.
    """
    model = read_tflite(content, name)
    try:
        translation = _Translation(model)
        check_graph(translation.graph)
    except (CheckpointError, ValueError, IndexError, KeyError, TypeError) as error:
        reason = error if isinstance(error, CheckpointError) else repr(error)
        raise CheckpointError(f"{name}: the network cannot be read: {reason}") from error
    return translation.graph, translation.weights


class _Translation:
    """Goes through the operators once; `graph` and `weights` hold the result."""

    def __init__(self, model: TfliteModel):
        (source,) = model.inputs
        self.shapes = {source: model.tensors[source].shape}  # of the values so far, as in the file
        self.constants = {
            index: tensor.array for index, tensor in enumerate(model.tensors) if tensor.array is not None
        }
        self.weights: dict[str, Tensor] = {}
        self.steps: list[Step] = []
        self.declared = [tensor.shape for tensor in model.tensors]
        for operator in model.operators:
            self.add(operator)
        shape = self.shapes[source]
        self.graph = Graph(
            input=f"v{source}",
            shape=[shape[axis] for axis in _TO_TORCH[1:]] if len(shape) == 4 else list(shape[1:]),
            steps=self.steps,
            outputs=[f"v{index}" for index in model.outputs],
            weights={key: list(weight.shape) for key, weight in self.weights.items()},
        )

    def add(self, operator: TfliteOperator) -> None:
        """The steps of one operator."""
        op, inputs, (output,) = operator.op, operator.inputs, operator.outputs
        if op == "DEQUANTIZE":  # of weights in half precision; quantized values are not supported
            self.constants[output] = self.constants[inputs[0]].astype(np.float32)
            return
        self.shapes[output] = self.declared[output]
        activation = operator.options.get("activation", 0)
        name = f"v{output}" if not activation else f"v{output}_linear"
        if op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            self.convolve(operator, name)
        elif op in _SINGLES:
            self.step(_SINGLES[op], [self.value(inputs[0])], name)
        elif op in _PAIRS:
            rank = len(self.declared[output])
            self.step(_PAIRS[op], [self.value(index, rank) for index in inputs], name)
        elif op == "CONCATENATION":
            rank = len(self.declared[output])
            axis = _axes(operator.options["axis"], rank)[0]
            self.step("concatenate", [self.value(index, rank) for index in inputs], name, axis=axis)
        else:
            {
                "MAX_POOL_2D": self.pool,
                "MEAN": self.reduce,
                "SUM": self.reduce,
                "PAD": self.pad,
                "PRELU": self.prelu,
                "RESHAPE": self.reshape,
                "STRIDED_SLICE": self.slice,
                "TRANSPOSE": self.transpose,
            }[op](operator, name)
        if activation:
            self.step(_ACTIVATIONS[activation], [name], f"v{output}")

    def step(self, op: str, inputs: list[str], output: str, **options: object) -> None:
        self.steps.append(Step(op, inputs, output, options))

    def weight(self, index: int, use: str, array: np.ndarray) -> str:
        name = f"w{index}_{use}"
        self.weights[name] = torch.from_numpy(array.astype(np.float32, order="C"))
        return name

    def value(self, index: int, rank: int = 0) -> str:
        """The name of an operand; a constant becomes a weight of as many axes as the values it meets."""
        if index in self.shapes:
            return f"v{index}"
        array = self.constants[index]
        if rank == 4:
            array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(_TO_TORCH)
        return self.weight(index, "map", array)

    def convolve(self, operator: TfliteOperator, name: str) -> None:
        source, kernel, *bias = operator.inputs
        options, array = operator.options, self.constants[kernel]
        order = (3, 0, 1, 2) if operator.op == "DEPTHWISE_CONV_2D" else _TO_TORCH
        array = array.transpose(order)  # (outputs, inputs of a group, height, width)
        dilation = (options["dilation_h"], options["dilation_w"])
        extent = [(size - 1) * factor + 1 for size, factor in zip(array.shape[2:], dilation, strict=True)]
        names = [self.value(source), self.weight(kernel, "kernel", array)]
        names += [self.weight(index, "vector", self.constants[index]) for index in bias if index >= 0]
        self.step(
            "conv",
            names,
            name,
            stride=[options["stride_h"], options["stride_w"]],
            padding=self.padding(source, extent, options),
            dilation=list(dilation),
            groups=self.shapes[source][3] // array.shape[1],
        )

    def pool(self, operator: TfliteOperator, name: str) -> None:
        (source,), options = operator.inputs, operator.options
        kernel = [options["filter_h"], options["filter_w"]]
        stride = [options["stride_h"], options["stride_w"]]
        padding = self.padding(source, kernel, options)
        self.step("max_pool", [self.value(source)], name, kernel=kernel, stride=stride, padding=padding)

    def padding(self, source: int, extent: list[int], options: dict[str, int]) -> list[int]:
        """left, right, top, bottom. "Same" gives ceil(size / stride) outputs, the odd pixel at the end."""
        if options["padding"] == 1:  # "valid"
            return [0, 0, 0, 0]
        _, height, width, _ = self.shapes[source]
        sides: list[int] = []
        for size, reach, stride in ((width, extent[1], options["stride_w"]),
                                    (height, extent[0], options["stride_h"])):  # fmt: skip
            total = max((math.ceil(size / max(stride, 1)) - 1) * stride + reach - size, 0)
            sides += [total // 2, total - total // 2]
        return sides

    def prelu(self, operator: TfliteOperator, name: str) -> None:
        source, slope = operator.inputs
        array = self.constants[slope]
        if array.size != array.shape[-1] or len(self.shapes[source]) != 4:
            raise ValueError("PRELU with other than one slope per channel")
        self.step("prelu", [self.value(source), self.weight(slope, "vector", array.reshape(-1))], name)

    def pad(self, operator: TfliteOperator, name: str) -> None:
        source, amounts = operator.inputs
        table = self.constants[amounts].tolist()
        if table[0] != [0, 0]:
            raise ValueError("PAD of the batch")
        if len(table) == 4:
            table = [table[axis] for axis in _TO_TORCH]
        flat = [amount for pair in reversed(table[1:]) for amount in pair]  # F.pad begins at the last axis
        self.step("pad", [self.value(source)], name, padding=flat)

    def reduce(self, operator: TfliteOperator, name: str) -> None:
        source, where = operator.inputs
        rank, keep = len(self.shapes[source]), bool(operator.options["keep_dims"])
        axes = _axes(self.constants[where], rank)
        if 0 in axes or (rank == 4 and not keep):
            raise ValueError(f"{operator.op} over the batch, or of a map without keeping its axes")
        self.step(operator.op.lower(), [self.value(source)], name, axes=axes, keep=keep)

    def reshape(self, operator: TfliteOperator, name: str) -> None:
        """Numbers are laid out with channels last in the file, so maps go there and back."""
        source, shape = operator.inputs[0], self.declared[operator.outputs[0]]
        if self.shapes[source][0] != 1 or shape[0] != 1:
            raise ValueError("RESHAPE of the batch")
        current = self.value(source)
        if len(self.shapes[source]) == 4:
            self.step("permute", [current], f"{name}_last", axes=list(_FROM_TORCH))
            current = f"{name}_last"
        flat = f"{name}_flat" if len(shape) == 4 else name
        self.step("reshape", [current], flat, shape=list(shape[1:]))
        if len(shape) == 4:
            self.step("permute", [flat], name, axes=list(_TO_TORCH))

    def slice(self, operator: TfliteOperator, name: str) -> None:
        """Ranges of axes; the batch is kept even where the file takes its only item out."""
        source, options, output = operator.inputs[0], operator.options, operator.outputs[0]
        begins, ends, strides = (self.constants[index].tolist() for index in operator.inputs[1:])
        shape, shrink = self.shapes[source], options["shrink_axis_mask"]
        if options["ellipsis_mask"] or options["new_axis_mask"] or shrink > 1 or set(strides) != {1}:
            raise ValueError("STRIDED_SLICE with a stride or new axes")
        if shrink:
            self.shapes[output] = (1, *self.declared[output])
        ranges = []
        for axis in range(1, len(begins)):
            bounds = slice(
                None if options["begin_mask"] >> axis & 1 else begins[axis],
                None if options["end_mask"] >> axis & 1 else ends[axis],
            )
            begin, end, _ = bounds.indices(shape[axis])
            if (begin, end) != (0, shape[axis]):
                ranges.append([*_axes(axis, len(shape)), begin, end])
        self.step("slice", [self.value(source)], name, ranges=ranges)

    def transpose(self, operator: TfliteOperator, name: str) -> None:
        source, order = operator.inputs
        axes = self.constants[order].tolist()
        if axes[0] != 0:
            raise ValueError("TRANSPOSE of the batch")
        if len(axes) == 4:
            axes = [_FROM_TORCH[axes[axis]] for axis in _TO_TORCH]
        self.step("permute", [self.value(source)], name, axes=axes)


def _axes(numbers: np.ndarray | int, rank: int) -> list[int]:
    """Axes of the file's order, counted from either end, in torch's order."""
    axes = [int(axis) % rank for axis in np.atleast_1d(numbers)]
    return [_FROM_TORCH[axis] for axis in axes] if rank == 4 else axes
