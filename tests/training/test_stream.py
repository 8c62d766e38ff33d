"""The stream of batches: which samples, in which order, made by whom."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from facegpt.model.backbone import load_backbone
from facegpt.model.tokens import add_face_token
from facegpt.training.engine import Ranks
from facegpt.training.meter import MetricMeter
from facegpt.training.settings import ObjectiveSettings
from facegpt.training.stream import Stream, prefetch

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def processor(world):
    backbone, processor = load_backbone(world.path / "llava", torch.float32)
    add_face_token(processor.tokenizer, len(backbone.get_input_embeddings().weight))
    return processor


def words(steps):
    """What makes a batch recognisable."""
    return [[(batch.ids, batch.sources, batch.input_ids.tolist()) for batch in step] for step in steps]


def test_a_stream_that_starts_later_goes_on_with_the_same_samples(world, processor, tmp_path):
    settings = world.settings(tmp_path / "run")
    whole = words(Stream(settings, ALONE, processor).steps(1))
    assert len(whole) == 4 and all(len(step) == 2 for step in whole)
    assert words(Stream(settings, ALONE, processor).steps(3)) == whole[2:]


def test_two_ranks_share_the_samples_that_one_rank_would_have(world, processor, tmp_path):
    one = world.settings(tmp_path / "run", "optimization.batch=4")
    two = world.settings(tmp_path / "run")
    alone = words(Stream(one, ALONE, processor).steps(1))
    shared = [words(Stream(two, Ranks(r, 2, ALONE.device), processor).steps(1)) for r in range(2)]
    for step, whole in enumerate(alone):
        ids = sorted(name for batch in whole for name in batch[0])
        assert sorted(name for rank in shared for batch in rank[step] for name in batch[0]) == ids


def test_weights_decide_how_often_a_source_is_drawn_and_zero_leaves_it_out(world, processor, tmp_path):
    settings = world.settings(tmp_path / "run", "optimization.steps=16", "data.sources.chat.weight=0")
    drawn = [name for step in Stream(settings, ALONE, processor).steps(1) for b in step for name in b.sources]
    assert len(drawn) == 64 and "chat" not in drawn
    assert drawn.count("photographs") == pytest.approx(2 * drawn.count("descriptions"), abs=2)


def test_an_error_of_the_loading_thread_is_raised_where_batches_are_taken():
    def items():
        yield 1
        raise ValueError("face-7 is broken")

    taken = prefetch(items(), 2)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="face-7"):
        next(taken)


def test_the_thread_runs_ahead_only_as_far_as_asked_and_ends_with_its_consumer():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    taken = prefetch(items(), 3)
    assert next(taken) == 0
    time.sleep(0.3)
    assert len(made) <= 6
    taken.close()
    deadline = time.monotonic() + 5
    while any(thread.name == "batches" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(made) <= 7


def test_the_ledger_means_over_tokens_and_faces_not_over_batches():
    meter = MetricMeter(
        ["a", "b"], ObjectiveSettings(pixel=1.0, perceptual=0, landmark=0, regularization=0), ALONE
    )
    meter.add(
        ["a", "b"],
        torch.tensor([1.0, 2.0, 3.0, 10.0]),
        torch.tensor([0, 0, 0, 1]),
        torch.tensor([6.0]),
        torch.tensor([1]),
        {"pixel": torch.tensor([6.0])},
    )
    meter.add(["b"], torch.tensor([4.0]), torch.tensor([0]), None, torch.tensor([], dtype=torch.int64), {})
    row = meter.report()
    assert row["loss/text"] == 4.0  # (1 + 2 + 3 + 10 + 4) / 5
    assert (row["source/a/text"], row["source/b/text"]) == (2.0, 7.0)
    assert (row["loss/face"], row["source/b/face"], row["face/pixel"]) == (6.0, 6.0, 6.0)
    assert "source/a/face" not in row
    assert row["loss"] == pytest.approx(4.0 + 0.1 * 6.0)
    assert "loss/face" not in meter.report()


def test_the_meter_counts_the_steps_that_were_clipped_since_the_last_report():
    meter = MetricMeter(["a"], ObjectiveSettings(), ALONE)
    for norm in (0.5, torch.tensor(3.0), 1.0, 32.0):
        meter.add_step(norm, clip=1.0)
    assert meter.report()["clipped"] == 0.5
    meter.add_step(5.0, clip=0.0)
    assert "clipped" not in meter.report()


def test_a_meter_goes_on_with_the_clipped_steps_of_the_one_before():
    before, after = (MetricMeter(["a"], ObjectiveSettings(), ALONE) for _ in range(2))
    before.add_step(2.0, clip=1.0)
    after.restore(before.state())
    after.add_step(0.5, clip=1.0)
    assert after.report()["clipped"] == 0.5
