"""The reader: a small network that sees all image tokens at once and sums up what they say of a face."""

from __future__ import annotations

from torch import Tensor, nn


class FaceReader(nn.Module):
    """Global features of a picture from its tokens (M,tokens,channels), standardized: (M,outputs).

    width: numbers that are kept of every token; hidden: of the layer that sees them all.
    """

    def __init__(
        self, tokens: int, channels: int, width: int = 32, outputs: int = 256, hidden: int = 512
    ) -> None:
        super().__init__()
        self.token = nn.Linear(channels, width)
        self.gather = nn.Linear(tokens * width, hidden)
        self.facts = nn.Linear(hidden, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        narrow = nn.functional.gelu(self.token(tokens))  # (M, tokens, width)
        return self.facts(nn.functional.gelu(self.gather(narrow.flatten(1))))
