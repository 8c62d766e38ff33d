"""Which sample comes when: a deterministic map from sample number to (source, index, epoch).

Resuming needs only the step number, and the samples of a step do not depend on how many ranks share them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from facegpt.data.sources import Source
from facegpt.errors import ConfigError
from facegpt.sample import Sample


@dataclass(frozen=True)
class Position:
    """Sample `index` of source number `source`, seen for the `epoch`-th time (from 0)."""

    source: int
    index: int
    epoch: int


class Mixture:
    """Mixes sources in proportion to `weights`.

    Sample numbers are cut into blocks. In every block each source has its share to within one sample, and so
    it has in all blocks together. Within a block a source's samples are spread evenly, with a jitter drawn
    for the block, so that batches and ranks hold about the same work. Each source is walked through by a
    permutation of its own, another one in every epoch: nothing repeats within an epoch. All of it follows
    from `seed`, the same on every machine.

    Raises ConfigError for weights that are not positive or too unequal, and for sources that are empty.
    """

    def __init__(self, weights: Sequence[float], lengths: Sequence[int], seed: int = 0) -> None:
        weights, self.lengths, self.seed = list(weights), list(lengths), seed
        if len(weights) != len(lengths) or not weights:
            raise ConfigError(f"{len(weights)} mixing weights do not fit {len(lengths)} sources")
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise ConfigError(f"mixing weights must be positive, they are {weights}; leave out a source of 0")
        if not all(length > 0 for length in lengths):
            raise ConfigError(f"a source without samples cannot be mixed in, the lengths are {self.lengths}")
        shares = [weight / math.fsum(weights) for weight in weights]
        if min(shares) < 1e-4:
            raise ConfigError(f"the mixing weights {weights} give a source less than 1 sample of 10000")
        self.shares_before = [math.fsum(shares[:i]) for i in range(len(shares))] + [1.0]
        self.block = max(32, math.ceil(2 / min(shares)))  # or a source's count could be negative
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))
        self._walks: dict[int, tuple[int, np.ndarray]] = {}

    def locate(self, number: int) -> Position:
        """Where sample `number` (from 0) lies."""
        block, offset = divmod(number, self.block)
        order = self._block_order(block)
        source = int(order[offset])
        draw = self._counts(block * self.block)[source] + int((order[:offset] == source).sum())
        epoch, rank = divmod(draw, self.lengths[source])
        return Position(source, int(self._walk(source, epoch)[rank]), epoch)

    def _counts(self, number: int) -> list[int]:
        """How many of the first `number` samples each source gets; they sum to `number`."""
        edges = [math.floor(number * share) for share in self.shares_before]
        return [after - before for before, after in pairwise(edges)]

    def _block_order(self, block: int) -> np.ndarray:
        if self._order[0] != block:
            start, end = self._counts(block * self.block), self._counts((block + 1) * self.block)
            counts = np.subtract(end, start)
            jitter = permutation(self.block, self.seed, len(self.lengths), block) / self.block  # in [0, 1)
            places = (np.concatenate([np.arange(count) for count in counts]) + jitter) / counts.repeat(counts)
            sources = np.repeat(np.arange(len(counts)), counts)
            self._order = (block, sources[np.argsort(places, kind="stable")])
        return self._order[1]

    def _walk(self, source: int, epoch: int) -> np.ndarray:
        if self._walks.get(source, (-1,))[0] != epoch:
            self._walks[source] = (epoch, permutation(self.lengths[source], self.seed, source, epoch))
        return self._walks[source][1]


def permutation(length: int, *key: int) -> np.ndarray:
    """A permutation of `length` indices that follows from the integers of `key` alone.

    The order of SplitMix64 hashes (Steele et al. 2014) rather than a library's generator, whose stream may
    change between versions and with it the order of a resumed run.
    """
    mask = (1 << 64) - 1
    state = 0
    for number in key:
        state = int(_mix(np.array([(state * 0x9E3779B97F4A7C15 + number + 1) & mask], dtype=np.uint64))[0])
    steps = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.argsort(_mix(steps + np.uint64(state)), kind="stable")


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser on uint64, wrapping around."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class MixedSamples:
    """Sample number -> Sample, for whoever walks through `batch_numbers` (`facegpt.training.stream`)."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int = 0) -> None:
        self.sources = list(sources)
        self.mixture = Mixture(weights, [len(source) for source in sources], seed)

    def __getitem__(self, number: int) -> Sample:
        position = self.mixture.locate(number)
        return self.sources[position.source].sample(position.index, position.epoch)


def batch_numbers(
    first_step: int, last_step: int, batch: int, rank: int = 0, world: int = 1
) -> Iterator[list[int]]:
    """Sample numbers of one rank's micro-batches, steps first_step..last_step - 1.

    Rank r of `world` takes the r-th slice of the `world * batch` numbers of a step; all ranks together take
    the same numbers whatever their count, as long as world * batch is the same.
    """
    for step in range(first_step, last_step):
        start = (step * world + rank) * batch
        yield list(range(start, start + batch))
