"""Run an ONNX recogniser (insightface's `w600k_r50.onnx`, OpenCV's SFace) as differentiable torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facegpt.errors import CheckpointError
from facegpt.perception.align import ALIGNED_SIZE
from facegpt.perception.onnx_file import read_onnx

FACE_SHAPE = (3, ALIGNED_SIZE, ALIGNED_SIZE)
MOST_VALUES = 1 << 27  # numbers between input and output per face, 512 MiB; IResNet-200 makes 56 million


def _conv(attributes: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    spatial = weight.ndim - 2
    pads = attributes.get("pads", [0] * 2 * spatial)
    before, after = pads[:spatial], pads[spatial:]
    x = F.pad(x, [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair])
    if x.is_meta and x.numel() > MOST_VALUES:
        raise ValueError(f"its padding {pads} makes {x.numel()} numbers per face, {MOST_VALUES} is the limit")
    strides, dilations = attributes.get("strides", 1), attributes.get("dilations", 1)
    return F.conv2d(x, weight, bias, stride=strides, dilation=dilations, groups=attributes.get("group", 1))


def _batch_norm(
    attributes: dict[str, Any], x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=attributes.get("epsilon", 1e-5))


def _gemm(attributes: dict[str, Any], a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "PRelu": lambda attributes, x, slope: torch.where(x >= 0, x, slope * x),
    "Relu": lambda attributes, x: F.relu(x),
    "Add": lambda attributes, a, b: a + b,
    "Sub": lambda attributes, a, b: a - b,
    "Mul": lambda attributes, a, b: a * b,
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
    "Gemm": _gemm,
    "Identity": lambda attributes, x: x,
    "Dropout": lambda attributes, x, *_: x,  # inference
}


class OnnxNetwork(nn.Module):
    """Aligned faces (B,3,112,112) in [-1,1] -> features (B,D), by the nodes of an ONNX graph.

    Raises CheckpointError, naming the file, for a broken file, an operation it does not know, a graph that
    does not take such faces or needs more than `MOST_VALUES` numbers for one.

    A network that begins by subtracting normalises bytes by itself (those converted from MXNet, SFace among
    them): it is fed 0 to 255. insightface tells them apart likewise.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        graph = read_onnx(path)
        unknown = sorted({node.op for node in graph.nodes} - set(_OPERATIONS))
        if unknown:
            raise CheckpointError(
                f"{path}: operations {', '.join(unknown)} are not supported; use an IResNet such as w600k_r50"
            )
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise CheckpointError(
                f"{path}: one input and one output are needed, found {list(graph.inputs)}, {graph.outputs}"
            )
        ((self.input, shape),) = graph.inputs.items()
        self.nodes, self.output = graph.nodes, graph.outputs[0]
        self.reads_bytes = [node.op for node in graph.nodes if self.input in node.inputs][:1] == ["Sub"]
        if any(size not in (None, wanted) for size, wanted in zip(shape[1:], FACE_SHAPE, strict=False)):
            raise CheckpointError(
                f"{path}: the network reads images {shape[1:]}, aligned faces are {FACE_SHAPE}; use another"
            )
        # Names in the file contain dots, which torch forbids.
        self.buffer_names = {name: f"weight_{k}" for k, name in enumerate(graph.weights)}
        for name, array in graph.weights.items():
            tensor = torch.from_numpy(array.copy())
            self.register_buffer(
                self.buffer_names[name], tensor.float() if tensor.is_floating_point() else tensor
            )
        try:
            self._rehearse()
        except Exception as error:  # operations raise whatever a wrong name, attribute or shape leads to
            raise CheckpointError(
                f"{path}: the network cannot be run on an aligned face {FACE_SHAPE} "
                f"({type(error).__name__}: {error}); use an IResNet such as w600k_r50"
            ) from error

    def forward(self, aligned: Tensor) -> Tensor:
        """Features (B,D) of aligned faces (B,3,112,112) in [-1,1]; differentiable in them."""
        values = {name: self.get_buffer(buffer) for name, buffer in self.buffer_names.items()}
        return self._run(values, aligned)[self.output]

    def _run(self, values: dict[str, Tensor], aligned: Tensor) -> dict[str, Tensor]:
        """Every value of the graph by name, from its weights and the input."""
        values[self.input] = (aligned + 1) * 127.5 if self.reads_bytes else aligned
        for node in self.nodes:
            arguments = [values[name] if name else None for name in node.inputs]
            values[node.outputs[0]] = _OPERATIONS[node.op](node.attributes, *arguments)
        return values

    def _rehearse(self) -> None:
        """Run one face on the meta device, where shapes are computed but no memory is taken."""
        outputs = [node.outputs[0] for node in self.nodes]
        if len({*outputs, *self.buffer_names, self.input}) < len(outputs) + len(self.buffer_names) + 1:
            raise ValueError("a value is assigned twice")
        weights = {name: self.get_buffer(buffer).to("meta") for name, buffer in self.buffer_names.items()}
        values = self._run(weights, torch.empty(1, *FACE_SHAPE, device="meta"))
        if (count := sum(values[name].numel() for name in outputs)) > MOST_VALUES:
            raise ValueError(f"it makes {count} numbers per face, {MOST_VALUES} is the limit")
        if values[self.output].ndim != 2 or len(values[self.output]) != 1:
            raise ValueError(f"it gives {tuple(values[self.output].shape)} instead of one row of features")
