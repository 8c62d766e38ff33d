"""Reads a description word by word: attention from a face to the states of the text before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

QUERIES, WIDTH = 8, 128


class TextReader(nn.Module):
    """Attention pooling of a text, for a face head that is to know more of it than one state can hold.

    Learned queries say what is looked for (brows, mouth, skin ...), an offset common to them, linear in the
    face state, where: of two people in one request the one whose turn it is. Each query sums up the words in
    `WIDTH` numbers by its own softmax over them (pooling by attention as in Set Transformer, Lee et al. 2019,
    with one projection to keys and one to values for all queries).
    """

    size = QUERIES * WIDTH  # of what it returns

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.state_norm = nn.LayerNorm(hidden_size)
        self.key = nn.Linear(hidden_size, WIDTH, bias=False)
        self.value = nn.Linear(hidden_size, WIDTH)
        self.where = nn.Linear(hidden_size, WIDTH, bias=False)
        nn.init.zeros_(self.where.weight)
        self.what = nn.Parameter(torch.randn(QUERIES, WIDTH) * WIDTH**-0.5)

    def forward(self, states: Tensor, words: Tensor, told: Tensor) -> Tensor:
        """Face states (F,H), states of the words (F,T,H), told (F,T) bool: which of them count -> (F, size).

        At least one word of each text has to count.
        """
        words = self.norm(words)
        queries = self.what + self.where(self.state_norm(states))[:, None]  # (F, QUERIES, WIDTH)
        scores = queries @ self.key(words).transpose(1, 2)  # (F, QUERIES, T)
        weights = scores.masked_fill(~told[:, None], -torch.inf).softmax(dim=-1)
        return (weights @ self.value(words)).flatten(1)
