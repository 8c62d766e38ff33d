"""Paired tests against exact counts; Holm's adjustment against its definition."""

from __future__ import annotations

import pytest
import torch

from facegpt.metrics.paired import holm, paired_test


def test_the_smallest_p_of_wilcoxon_is_that_of_all_signs_alike() -> None:
    better = torch.arange(1.0, 9)  # eight faces, all smaller by the first: p = 2 / 2^8
    test = paired_test(torch.zeros(8), better, seed=0)
    assert test.p == pytest.approx(2 / 2**8) and test.smaller == 1.0 and test.count == 8
    assert test.difference.value == -4.5 and test.difference.low < -4.5 < test.difference.high < 0
    other = paired_test(better, torch.zeros(8), seed=0)
    assert other.p == test.p and other.difference.value == 4.5 and other.smaller == 0.0


def test_equal_methods_differ_by_nothing_and_a_constant_gap_has_no_spread() -> None:
    values = torch.randn(20, generator=torch.Generator().manual_seed(0))
    same = paired_test(values, values, seed=0)
    assert (same.p, same.smaller, same.difference.value) == (1.0, 0.5, 0.0)
    shifted = paired_test(values + 1, values, seed=0)
    assert shifted.difference.low == pytest.approx(1) == shifted.difference.high
    with pytest.raises(ValueError, match="finite"):
        paired_test(values, values * torch.nan, seed=0)


def test_holm_multiplies_by_the_tests_that_are_left_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
