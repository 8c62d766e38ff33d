"""A resumed run does what the uninterrupted one would have done."""

from __future__ import annotations

import shutil

import pytest


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_resuming_repeats_the_losses_of_the_uninterrupted_run(world, run_training, tmp_path, stage):
    more = [f"optimization.deepspeed=configs/deepspeed/{stage}.json", "checkpoint.keep=0"]
    whole = run_training(world.settings(tmp_path / "whole", *more))
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    shutil.rmtree(cut / "checkpoints" / "step_000004")
    resumed = run_training(world.settings(cut, *more, "resume=true"))
    assert [row["step"] for row in resumed] == [1, 2, 3, 4]
    for expected, actual in zip(whole, resumed, strict=True):
        assert _measured(actual) == pytest.approx(_measured(expected), rel=1e-5)
    assert whole[2]["loss"] != whole[1]["loss"]


def _measured(row):
    """Losses, learning rates and gradient norm: all but what depends on the clock."""
    return {key: value for key, value in row.items() if not key.startswith(("kind", "time", "speed"))}
