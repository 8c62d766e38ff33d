"""The tiny recogniser's network: a small residual CNN with an ArcFace-style embedding.

A stand-in for IResNet-50, trained on the built-in head's identities by `scripts/pretrain_tiny_recognizer.py`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS = (16, 32, 64, 128)
FEATURES = 128


class ConvUnit(nn.Module):
    """A convolution with batch normalisation, which `fold` merges into the convolution after training."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fold(self) -> None:
        """Merge the normalisation into the convolution; in evaluation mode nothing else changes."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = ConvUnit(inputs, outputs, 3, stride, 1)
        self.second = ConvUnit(outputs, outputs, 3, 1, 1)
        self.shortcut = (
            ConvUnit(inputs, outputs, 1, stride) if inputs != outputs or stride != 1 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return _activate(self.second(_activate(self.first(x))) + self.shortcut(x))


def _activate(x: Tensor) -> Tensor:
    """Leaky, so that the perceptual loss keeps a gradient everywhere; in place, for the CPU's sake."""
    return F.leaky_relu(x, 0.1, inplace=True)


class TinyNetwork(nn.Module):
    """Aligned faces (B,3,112,112) in [-1,1] -> features (B,128), not normalised.

    Works at 56 x 56 for speed. The head is a 7x7 depthwise convolution (MobileFaceNet's), which keeps where
    in the face something is, unlike an average. `folded` builds the form without batch normalisation, in
    which the weights are shipped.
    """

    def __init__(self, folded: bool = False):
        super().__init__()
        self.stem = ConvUnit(3, WIDTHS[0], 3, 1, 1)
        self.blocks = nn.Sequential(
            ResidualBlock(WIDTHS[0], WIDTHS[1], 2),  # 28 x 28
            ResidualBlock(WIDTHS[1], WIDTHS[2], 2),  # 14 x 14
            ResidualBlock(WIDTHS[2], WIDTHS[2], 1),
            ResidualBlock(WIDTHS[2], WIDTHS[3], 2),  # 7 x 7
        )
        self.pool = ConvUnit(WIDTHS[3], WIDTHS[3], 7, groups=WIDTHS[3])
        self.head = ConvUnit(WIDTHS[3], FEATURES, 1)
        if folded:
            self.eval().fold()

    def forward(self, aligned: Tensor) -> Tensor:
        return self.embed(F.avg_pool2d(aligned, 2))

    def embed(self, half: Tensor) -> Tensor:
        """Features of faces that are already halved, (B,3,56,56)."""
        x = self.blocks(_activate(self.stem(half)))
        return self.head(self.pool(x)).flatten(1)

    def fold(self) -> TinyNetwork:
        """Merge the batch normalisations into the convolutions (evaluation mode); returns itself."""
        for module in self.modules():
            if isinstance(module, ConvUnit):
                module.fold()
        return self
