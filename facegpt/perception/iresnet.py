"""IResNet, ArcFace's backbone, with the parameter names of insightface's `arcface_torch` checkpoints.

Architecture: Duta et al. 2020, "Improved Residual Networks"; Deng et al. 2019, "ArcFace".
`ms1mv3_arcface_r50` has blocks (3, 4, 14, 3), widths (64, 128, 256, 512) and 512 features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class IResNetBlock(nn.Module):
    """A residual block (B,inputs,H,W) -> (B,outputs,H/stride,W/stride), normalised before it convolves."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.bn1(x))
        out = self.bn3(self.conv2(self.prelu(self.bn2(out))))
        return out + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """Aligned faces (B,3,112,112) in [-1,1] -> features (B,features), not normalised. Inference only."""

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 14, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        features: int = 512,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        inputs = widths[0]
        for number, (count, outputs) in enumerate(zip(blocks, widths, strict=True), start=1):
            layer = [
                IResNetBlock(inputs if k == 0 else outputs, outputs, 2 if k == 0 else 1) for k in range(count)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*layer))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * 7 * 7, features)
        self.features = nn.BatchNorm1d(features)

    def forward(self, aligned: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(aligned)))
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


def iresnet_from_state(state: Mapping[str, Tensor]) -> IResNet:
    """The IResNet (18, 34, 50, 100, ...) whose sizes a checkpoint's tensors show, with them loaded.

    Raises KeyError or RuntimeError when the names or shapes are not an IResNet's.
    """
    found = [re.match(r"layer(\d)\.(\d+)\.", name) for name in state]
    indices = [(int(m[1]), int(m[2])) for m in found if m]
    blocks = [1 + max(index for layer, index in indices if layer == number) for number in (1, 2, 3, 4)]
    if sum(blocks) > len(state):
        raise KeyError(f"the weights of {sum(blocks)} blocks in {len(state)} tensors")
    widths = [state[f"layer{number}.0.conv1.weight"].shape[0] for number in (1, 2, 3, 4)]
    with torch.device("meta"):
        network = IResNet(blocks, widths, state["fc.weight"].shape[0])
    # assign: no second copy; fp16 checkpoints are widened because CPUs are slow in half precision.
    network.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, assign=True
    )
    return network
