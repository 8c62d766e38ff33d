"""Recognition rate, matching among candidates, and the rates of face tokens."""

import math

import pytest
import torch

from facegpt.metrics.face_token_rates import face_token_rates, wilson_interval
from facegpt.metrics.identity import matching_accuracy, recognition_rate


def test_recognition_rate_is_a_hundred_times_the_cosine():
    prediction = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    truth = torch.tensor([[3.0, 0.0], [1.0, 0.0], [5.0, 0.0], [-1.0, 0.0]])
    expected = torch.tensor([100.0, 100 / math.sqrt(2), 0.0, -100.0])
    assert torch.allclose(recognition_rate(prediction, truth), expected, atol=1e-5)


def test_matching_accuracy_by_hand():
    distances = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.5, 0.4, 0.6], [9.0, 8.0, 7.0]])
    assert matching_accuracy(distances, torch.tensor([0, 0, 1, 2])) == 75


def test_ties_and_nan_count_against_the_model():
    distances = torch.tensor([[0.1, 0.1], [0.0, 0.0], [torch.nan, 1.0], [0.0, torch.nan], [0.0, 1.0]])
    assert math.isclose(matching_accuracy(distances, torch.zeros(5, dtype=torch.long)), 20)


def test_matching_needs_something_to_confuse():
    with pytest.raises(ValueError, match="K > 1"):
        matching_accuracy(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="Q > 0"):
        matching_accuracy(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))


def test_face_token_rates_by_hand():
    # wanted 1: came, missing, came twice; wanted 3: two came; wanted none: silent twice, one, two
    result = face_token_rates([1, 1, 1, 3, 0, 0, 0, 0], [1, 0, 2, 2, 0, 0, 1, 2])
    assert math.isclose(result.recall, 100 * 4 / 6)
    assert result.false_positive_rate == 50


def test_face_token_rates_without_a_case_is_not_a_number():
    assert math.isnan(face_token_rates([1, 2], [1, 2]).false_positive_rate)
    assert math.isnan(face_token_rates([0], [0]).recall)
    with pytest.raises(ValueError):
        face_token_rates([1, 1], [1])


def test_wilson_intervals_are_the_published_ones() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for found, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        assert wilson_interval(found, count) == pytest.approx((low, high), abs=1e-4)
    for found, count, low, high in ((0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert wilson_interval(found, count) == pytest.approx((low, high), abs=1e-4)
    assert wilson_interval(20, 20) == pytest.approx((1 - 0.1611, 1.0), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(3, 2)
