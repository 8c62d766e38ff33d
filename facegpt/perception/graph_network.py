"""A feed-forward network as data: a list of steps that a config can hold, and the torch module that runs it.

The weights are an ordinary state dict. Values are batches: (B,C,H,W) where the network works on maps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facegpt.errors import CheckpointError

MOST_STEPS = 5_000  # the landmark network has 220
MOST_WEIGHTS = 1 << 26  # numbers of all weights together; the landmark network has 1.2 million
MOST_VALUES = 1 << 27  # numbers that one input may need on its way; the landmark network takes 7 million


@dataclass
class Step:
    """One operation: the values or weights it reads, the value it makes (names), its settings."""

    op: str
    inputs: list[str]
    output: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Steps in execution order. `shape` is the input's without its batch, `weights` maps name -> shape.

    Everything is JSON-able: `Graph.from_dict(json.loads(json.dumps(graph.to_dict())))` is the same graph.
    """

    input: str
    shape: list[int]
    steps: list[Step]
    outputs: list[str]
    weights: dict[str, list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dictionaries, strings and numbers."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Graph:
        """The graph that `to_dict` wrote. Raises CheckpointError when it cannot be one."""
        try:
            graph = Graph(**{**data, "steps": [Step(**step) for step in data["steps"]]})
            check_graph(graph)
        except CheckpointError:
            raise
        except Exception as error:  # a foreign config fails in as many ways as it has fields
            raise CheckpointError(f"no graph of a network: {error!r}; write it with Graph.to_dict") from error
        return graph


def cut(graph: Graph, value: str) -> Graph:
    """The part of a graph that makes `value`, a name among its steps' outputs, with the weights it needs.

    Raises CheckpointError when no step makes it.
    """
    needed, steps = {value}, []
    for step in reversed(graph.steps):
        if step.output in needed:
            needed.update(step.inputs)
            steps.append(step)
    if value not in {step.output for step in steps}:
        raise CheckpointError(f"no step of the network makes a value {value!r}")
    weights = {name: shape for name, shape in graph.weights.items() if name in needed}
    return Graph(graph.input, graph.shape, steps[::-1], [value], weights)


def last_value(graph: Graph, shape: tuple[int, ...]) -> str:
    """The name of the last value of a shape (without batch). Raises CheckpointError when there is none.

    Example: `cut(graph, last_value(graph, (128, 8, 8)))` is the trunk of MediaPipe's landmark network.
    """
    values = trace(graph)
    for step in reversed(graph.steps):
        if values[step.output][1:] == shape:
            return step.output
    raise CheckpointError(f"the network makes no value of shape {shape}")


def trace(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The shape of every value for a batch of one, computed on the meta device, which takes no memory."""
    values = {name: torch.empty(shape, device="meta") for name, shape in graph.weights.items()}
    values[graph.input] = torch.empty([1, *graph.shape], device="meta")
    total = 0
    for step in graph.steps:
        if step.output in values:
            raise CheckpointError(f"a network that makes the value {step.output!r} twice")
        try:
            value = _OPERATIONS[step.op]([values[name] for name in step.inputs], step.options)
        except Exception as error:  # operations raise whatever a wrong name, setting or shape leads to
            raise CheckpointError(
                f"step {step.op!r}, which makes {step.output!r}, fails ({type(error).__name__}: {error})"
            ) from error
        total += value.numel()
        if total > MOST_VALUES:
            raise CheckpointError(f"a network of more than {MOST_VALUES} numbers for one input")
        values[step.output] = value
    return {name: tuple(value.shape) for name, value in values.items()}


def check_graph(graph: Graph) -> None:
    """Raise CheckpointError when a graph has unknown operations, does not fit together or is too large."""
    if unknown := sorted({step.op for step in graph.steps} - set(_OPERATIONS)):
        raise CheckpointError(f"operations {', '.join(unknown)} are not supported")
    if len(graph.steps) > MOST_STEPS:
        raise CheckpointError(f"a network of {len(graph.steps)} steps, {MOST_STEPS} is the limit")
    for name in graph.weights:
        if not re.fullmatch(r"w\d+_[a-z]+", name):  # others could be a module's own attributes
            raise CheckpointError(f"a weight {name[:50]!r}: names such as w12_kernel are needed")
    if sum(math.prod(shape) for shape in graph.weights.values()) > MOST_WEIGHTS:
        raise CheckpointError(f"a network of more than {MOST_WEIGHTS} weights")
    values = trace(graph)
    for name in graph.outputs:
        if name not in values or name in graph.weights:
            raise CheckpointError(f"no step of the network makes the output {name!r}")


class GraphNetwork(nn.Module):
    """Runs a graph on batches (B, *graph.shape); returns its outputs in order, a tuple.

    Weights are parameters under the names of `graph.weights`, frozen and zero until a state dict is loaded
    (or `weights` given). Differentiable in the input. Raises CheckpointError like `check_graph`.
    """

    def __init__(self, graph: Graph, weights: dict[str, Tensor] | None = None):
        super().__init__()
        check_graph(graph)
        self.graph = graph
        for name, shape in graph.weights.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape), requires_grad=False))
        if weights is not None:
            self.load_state_dict({name: weights[name] for name in graph.weights})
        last_use = {name: k for k, step in enumerate(graph.steps) for name in step.inputs}
        self._done: list[list[str]] = [[] for _ in graph.steps]  # values that nobody reads any more
        for name, k in last_use.items():
            if name not in graph.outputs and name not in graph.weights:
                self._done[k].append(name)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # On a CPU the narrow convolutions of such networks run faster with channels last.
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        values: dict[str, Tensor] = {**self._parameters, self.graph.input: x}  # type: ignore[dict-item]
        for step, done in zip(self.graph.steps, self._done, strict=True):
            values[step.output] = _OPERATIONS[step.op]([values[name] for name in step.inputs], step.options)
            for name in done:
                del values[name]
        return tuple(values[name] for name in self.graph.outputs)


def _conv(inputs: list[Tensor], options: dict[str, Any]) -> Tensor:
    """padding is that of F.pad: left, right, top, bottom. TensorFlow's "same" is asymmetric for stride 2."""
    x, weight, *bias = inputs
    left, right, top, bottom = options["padding"]
    if left != right or top != bottom:
        x, left, top = F.pad(x, (left, right, top, bottom)), 0, 0
    return F.conv2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=options["stride"],
        padding=(top, left),
        dilation=options["dilation"],
        groups=options["groups"],
    )


def _max_pool(inputs: list[Tensor], options: dict[str, Any]) -> Tensor:
    (x,) = inputs
    if any(options["padding"]):
        x = F.pad(x, options["padding"], value=-math.inf)
    return F.max_pool2d(x, options["kernel"], options["stride"])


def _concatenate(inputs: list[Tensor], options: dict[str, Any]) -> Tensor:
    """Weights among the inputs have a batch of one, which is repeated."""
    batch = max(len(x) for x in inputs)
    return torch.cat([x.expand(batch, *x.shape[1:]) for x in inputs], dim=options["axis"])


def _slice(inputs: list[Tensor], options: dict[str, Any]) -> Tensor:
    (x,) = inputs
    for axis, begin, end in options["ranges"]:
        x = x.narrow(axis, begin, end - begin)
    return x


_OPERATIONS: dict[str, Callable[[list[Tensor], dict[str, Any]], Tensor]] = {
    "add": lambda x, options: x[0] + x[1],
    "concatenate": _concatenate,
    "conv": _conv,
    "divide": lambda x, options: x[0] / x[1],
    "max_pool": _max_pool,
    "mean": lambda x, options: x[0].mean(dim=options["axes"], keepdim=options["keep"]),
    "multiply": lambda x, options: x[0] * x[1],
    "negate": lambda x, options: -x[0],
    "pad": lambda x, options: F.pad(x[0], options["padding"]),
    "permute": lambda x, options: x[0].permute(options["axes"]),
    "prelu": lambda x, options: F.prelu(x[0], x[1]),
    "relu": lambda x, options: F.relu(x[0]),
    "relu6": lambda x, options: F.relu6(x[0]),
    "reshape": lambda x, options: x[0].reshape(len(x[0]), *options["shape"]),
    "rsqrt": lambda x, options: x[0].rsqrt(),
    "sigmoid": lambda x, options: x[0].sigmoid(),
    "slice": _slice,
    "sqrt": lambda x, options: x[0].sqrt(),
    "squared_difference": lambda x, options: (x[0] - x[1]).square(),
    "subtract": lambda x, options: x[0] - x[1],
    "sum": lambda x, options: x[0].sum(dim=options["axes"], keepdim=options["keep"]),
}
