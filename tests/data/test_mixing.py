"""The order of samples: in proportion, without repeats, resumable, and the same for any number of ranks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from facegpt.data.mixing import MixedSamples, Mixture, batch_numbers, permutation
from facegpt.errors import ConfigError
from facegpt.sample import Message, Sample

PINNED_PERMUTATION = [5, 4, 6, 0, 3, 2, 7, 1]
PINNED_POSITIONS = [(1, 1, 0), (0, 4, 0), (0, 3, 0), (0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 1, 0), (1, 2, 0)]
WEIGHTS, LENGTHS = [5.0, 3.0, 0.37], [50, 1000, 7]


def positions(mixture, numbers):
    return [mixture.locate(number) for number in numbers]


def test_every_stretch_has_the_proportions_of_the_weights():
    mixture = Mixture(WEIGHTS, LENGTHS, seed=3)
    sources = np.array([p.source for p in positions(mixture, range(4000))])
    for source, weight in enumerate(WEIGHTS):
        share = weight / sum(WEIGHTS)
        count = np.cumsum(sources == source)
        drift = np.abs(count - share * np.arange(1, 4001))
        assert drift[mixture.block - 1 :: mixture.block].max() <= 1  # at the end of every block
        assert drift.max() < 3  # spread evenly in between: a shuffled block drifts by up to 6
    assert abs((sources[:2000] == 0).mean() - (sources[2000:] == 0).mean()) < 0.01


def test_a_source_repeats_nothing_within_an_epoch_and_reorders_the_next():
    found = positions(Mixture(WEIGHTS, LENGTHS), range(3000))
    for source, length in enumerate(LENGTHS):
        drawn = [p for p in found if p.source == source]
        assert [p.epoch for p in drawn] == [i // length for i in range(len(drawn))]
        for epoch in range(len(drawn) // length):
            assert sorted(p.index for p in drawn if p.epoch == epoch) == list(range(length))
    first, second = ([p.index for p in found if p.source == 0 and p.epoch == e] for e in (0, 1))
    assert first != second and first != sorted(first)


def test_a_position_depends_on_its_number_and_seed_only():
    one, other = Mixture(WEIGHTS, LENGTHS, seed=1), Mixture(WEIGHTS, LENGTHS, seed=1)
    numbers = [7, 2999, 0, 123456, 7, 64, 10**9]
    assert positions(one, numbers) == [other.locate(n) for n in numbers]
    assert positions(one, sorted(numbers)) == [other.locate(n) for n in sorted(numbers)]
    assert positions(one, range(50)) != positions(Mixture(WEIGHTS, LENGTHS, seed=2), range(50))


def test_the_order_never_changes_between_versions():
    """A changed order would silently break resumed runs, so it is pinned here."""
    assert permutation(8, 1, 2, 3).tolist() == PINNED_PERMUTATION
    found = positions(Mixture([2, 1], [5, 3], seed=0), range(8))
    assert [(p.source, p.index, p.epoch) for p in found] == PINNED_POSITIONS


def test_permutations_are_fair():
    counts = np.zeros((6, 6))
    for key in range(3000):
        counts[np.arange(6), permutation(6, key)] += 1
    assert np.abs(counts / 3000 - 1 / 6).max() < 0.03  # 4 standard deviations are 0.027
    assert sorted(permutation(1000, 5).tolist()) == list(range(1000))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_the_same_samples_whatever_their_number(world):
    whole = [n for step in batch_numbers(3, 6, batch=8) for n in step]
    ranks = [list(batch_numbers(3, 6, 8 // world, rank, world)) for rank in range(world)]
    steps = [sorted(n for rank in ranks for n in rank[step]) for step in range(3)]
    assert [n for step in steps for n in step] == whole == list(range(24, 48))
    assert Counter(len(b) for rank in ranks for b in rank) == {8 // world: 3 * world}


class Letters:
    def __init__(self, name, length):
        self.name, self.length = name, length

    def __len__(self):
        return self.length

    def sample(self, index, epoch):
        return Sample(f"{self.name}{index}.{epoch}", self.name, [Message("user", "")])


def test_resuming_continues_where_the_run_stopped():
    def run(first, last):
        samples = MixedSamples([Letters("a", 5), Letters("b", 9)], [1, 2], seed=4)
        return [samples[n].id for batch in batch_numbers(first, last, 3) for n in batch]

    assert run(0, 12) == run(0, 5) + run(5, 12)


@pytest.mark.parametrize(
    ("weights", "lengths"),
    [
        ([1.0], [1, 2]),
        ([], []),
        ([1, 0.0], [1, 1]),
        ([1, float("nan")], [1, 1]),
        ([1, 1], [0, 3]),
        ([1, 1e-6], [1, 1]),
    ],
)
def test_impossible_mixtures_are_refused(weights, lengths):
    with pytest.raises(ConfigError):
        Mixture(weights, lengths)
