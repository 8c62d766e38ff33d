"""Full disks, signals, leftovers and other people's files: what a run does when the world is unkind."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from data_files import face_row, write_shards
from recipes import load_recipe
from small_head import small_head

import facegpt.training.runs as runs
from facegpt.chat import newest_checkpoint
from facegpt.config import load_config
from facegpt.errors import ConfigError, TrainingError
from facegpt.model.checkpoint import run_checkpoints
from facegpt.training.engine import Ranks, raise_together
from facegpt.training.interrupt import Interrupt, catch_signals
from facegpt.training.resume import checkpoint_to_resume
from facegpt.training.runs import Run
from facegpt.training.settings import TrainSettings

train = load_recipe("train/train.py")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def users(tmp_path) -> Path:
    """A folder of somebody's that looks a little like a run."""
    for name in ("pictures/cat.jpg", "checkpoints/step_000002/weights.bin", "config.yaml", "metrics.jsonl"):
        (tmp_path / "theirs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs" / name).write_text("valuable")
    return tmp_path / "theirs"


@pytest.mark.parametrize(
    "flags", [[], ["overwrite=true"], ["resume=true"], ["overwrite=true", "resume=true"]]
)
def test_a_folder_that_no_run_wrote_is_refused_and_stays_as_it_is(world, ranks, users, flags):
    before = contents(users)
    settings = world.settings(users, *flags)
    with pytest.raises(ConfigError, match="holds no run of facegpt"):
        checkpoint_to_resume(settings, small_head(), ranks)
    with pytest.raises(TrainingError, match="holds no run of facegpt"):
        Run(settings, small_head().id, ranks)
    before.pop(".lock", None)
    assert {name: content for name, content in contents(users).items() if name != ".lock"} == before


def test_a_run_under_a_file_is_a_sentence(world, ranks, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file"):
        checkpoint_to_resume(world.settings(tmp_path / "file" / "run"), small_head(), ranks)


def test_a_folder_without_permission_is_a_sentence_before_anything_is_loaded(
    world, ranks, monkeypatch, tmp_path
):
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write anywhere
    with pytest.raises(ConfigError, match=r"run=.*new/run: .* cannot be written to; take another"):
        checkpoint_to_resume(world.settings(tmp_path / "new" / "run"), small_head(), ranks)


@pytest.fixture(scope="module")
def one_step(world, run_training, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    run_training(world.settings(run, "optimization.steps=1"))
    return run


@pytest.fixture
def run(one_step, tmp_path) -> Path:
    return Path(shutil.copytree(one_step, tmp_path / "run"))


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(world, ranks, run):
    kept = {"notes.txt", "pictures/cat.jpg", "checkpoints/best/mine.bin", "checkpoints/step_000001/mine.txt"}
    for name in kept:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("mine")
    Run(world.settings(run, "overwrite=true"), small_head().id, ranks).close()
    assert contents(run).keys() == kept | {".lock", "run.json", "config.yaml", "metrics.jsonl"}
    assert (run / "metrics.jsonl").read_text() == ""


def test_a_checkpoint_takes_its_name_also_where_somebody_has_left_a_file(world, run_training, run):
    (run / "checkpoints" / "step_000001" / "mine.txt").write_text("mine")
    run_training(world.settings(run, "optimization.steps=1", "overwrite=true"))
    new, kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert new == "step_000001" and run_checkpoints(run) == [run / "checkpoints" / new]
    assert contents(run / "checkpoints" / kept) == {"mine.txt": b"mine"}


def test_the_old_run_stays_when_the_new_one_cannot_begin(world, ranks, run, monkeypatch, capfd):
    def refuse(**_):
        raise RuntimeError("api_key not configured (no-tty)\nmore")

    before = contents(run)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    monkeypatch.setenv("WANDB_MODE", "online")
    settings = world.settings(run, "overwrite=true", "logging.wandb=true")
    with pytest.raises(TrainingError, match=r"W&B does not start in mode online \(api_key not configured"):
        Run(settings, small_head().id, ranks)
    assert {**contents(run), ".lock": b""} == {**before, ".lock": b""}
    new = run.with_name("new")
    with pytest.raises(TrainingError, match="W&B"):
        Run(world.settings(new, "logging.wandb=true"), small_head().id, ranks)
    assert not new.exists()


def test_an_empty_mode_of_wandb_is_none(world, ranks, tmp_path, monkeypatch):
    seen = {}

    def init(**options):
        assert "WANDB_MODE" not in os.environ
        seen.update(options)
        return SimpleNamespace(finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    Run(world.settings(tmp_path / "run", "logging.wandb=true"), small_head().id, ranks).close()
    assert seen["mode"] == "offline"


def test_keep_minus_one_keeps_all_and_less_is_refused(world, run_training, tmp_path):
    more = ["optimization.steps=3", "checkpoint.every=1"]
    run_training(world.settings(tmp_path / "all", *more, "checkpoint.keep=-1"))
    assert [path.name for path in run_checkpoints(tmp_path / "all")] == [f"step_00000{n}" for n in (1, 2, 3)]
    run_training(world.settings(tmp_path / "two", *more, "checkpoint.keep=2"))
    assert [path.name for path in run_checkpoints(tmp_path / "two")] == ["step_000002", "step_000003"]
    for override in ("checkpoint.keep=-2", "checkpoint.every=-5"):
        with pytest.raises(ConfigError, match=override.partition("=")[0]):
            load_config(TrainSettings, None, world.overrides(tmp_path / "run", override))


def test_the_newest_checkpoint_is_that_of_the_largest_number(run):
    checkpoints = run / "checkpoints"
    for name in ("step_999999", "step_1000001", "step_1000001.bak"):
        shutil.copytree(checkpoints / "step_000001", checkpoints / name)
    assert newest_checkpoint(run).name == "step_1000001"


def test_leftovers_of_killed_runs_are_swept_at_the_next_start(world, ranks, run):
    checkpoints = run / "checkpoints"
    for name in (".step_000002.part", "..step_000002.1a2b3c4d.part", "..step_000004.1a2b3c4d-77-abcd.part"):
        (checkpoints / name / "optimizer").mkdir(parents=True)
    shutil.copytree(checkpoints / "step_000001", checkpoints / "step_000000")
    (checkpoints / "step_000000" / "facegpt.json").unlink()  # its removal was interrupted
    settings = world.settings(run, "resume=true")
    Run(settings, small_head().id, ranks, step=1).close()
    assert [path.name for path in checkpoints.iterdir()] == ["step_000001"]


@pytest.mark.parametrize("victim", ["save_checkpoint", "save_state", "write_checksums"])
def test_a_full_disk_is_a_warning_and_the_older_checkpoint_stays(
    world, run_training, monkeypatch, capfd, tmp_path, victim
):
    original, calls = getattr(runs, victim), []

    def full_at_the_second(*arguments, **options):
        calls.append(victim)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **options)

    more = ["optimization.steps=3", "checkpoint.every=1", "checkpoint.keep=-1"]
    expected = run_training(world.settings(tmp_path / "fine", *more))
    monkeypatch.setattr(runs, victim, full_at_the_second)
    rows = run_training(world.settings(tmp_path / "run", *more))
    assert "checkpoint of step 2 could not be written ([Errno 28] No space left" in capfd.readouterr().err
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step_000001", "step_000003"]
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


def test_a_last_checkpoint_that_does_not_fit_is_an_error_and_the_run_can_go_on_later(
    world, run_training, monkeypatch, tmp_path
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_checkpoint", full)
        with pytest.raises(TrainingError, match="step 1 could not be written"):
            run_training(world.settings(tmp_path / "run", "optimization.steps=1"))
    assert run_checkpoints(tmp_path / "run") == []
    run_training(world.settings(tmp_path / "run", "optimization.steps=1", "resume=true"))
    assert len(run_checkpoints(tmp_path / "run")) == 1


def test_metrics_and_pictures_that_do_not_fit_are_a_warning(world, ranks, monkeypatch, capfd, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = Run(world.settings(tmp_path / "run"), small_head().id, ranks)
    run.log("train", 1, {"loss": 1.0})
    monkeypatch.setattr(runs, "append_jsonl", full)
    monkeypatch.setattr(runs, "atomic_path", full)
    run.log("train", 2, {"loss": 1.0})
    run.answers(2, [{"kind": "image"}])
    run.close()
    assert capfd.readouterr().err.count("No space left") == 2
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint_and_success(
    world, ranks, monkeypatch, capfd, tmp_path, number
):
    original, before = Run.log, signal.getsignal(number)

    def log_and_kill(self, kind, step, values, picture=None):
        original(self, kind, step, values, picture)
        if step == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "log", log_and_kill)
    overrides = world.overrides(tmp_path / "run", "optimization.steps=3", "checkpoint.every=0")
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    assert train.main(sys.argv[1:]) == 0
    assert signal.getsignal(number) is before
    assert [path.name for path in run_checkpoints(tmp_path / "run")] == ["step_000001"]
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides, "resume=true"])
    assert train.main(sys.argv[1:]) == 0
    assert [path.name for path in run_checkpoints(tmp_path / "run")] == ["step_000001", "step_000003"]
    capfd.readouterr()
    assert train.main(sys.argv[1:]) == 0  # once more: there is nothing to do
    assert "is finished at step 3" in capfd.readouterr().out


def test_a_second_interrupt_from_the_keyboard_is_not_held_back():
    with catch_signals() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt == Interrupt("SIGTERM")
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt == Interrupt("SIGINT")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


class TwoRanks(Ranks):
    """The first of two ranks; the other one has `theirs`."""

    def __init__(self, theirs):
        super().__init__(0, 2, torch.device("cpu"))
        object.__setattr__(self, "theirs", theirs)

    def sum(self, values):
        return values + float(bool(self.theirs))

    def gather(self, item):
        return [item, self.theirs]


def test_a_complaint_of_one_rank_ends_all_of_them_and_so_does_a_signal():
    raise_together(TwoRanks(""), "")
    for mine, theirs in (("", "theirs is broken"), ("mine is broken", "")):
        with pytest.raises(TrainingError, match="is broken"):
            raise_together(TwoRanks(theirs), mine)
    assert Interrupt().anywhere(TwoRanks("SIGTERM")) and Interrupt("SIGTERM").anywhere(TwoRanks(""))
    assert not Interrupt().anywhere(TwoRanks(""))


def test_data_that_breaks_while_training_is_one_sentence(world, ranks, monkeypatch, capfd, tmp_path):
    rows = [face_row(number) for number in range(2)]
    rows[1]["landmarks"][7] = float("nan")
    write_shards(tmp_path / "faces", rows)
    more = [f"data.sources.photographs.path={tmp_path / 'faces'}", "data.check_files=false"]
    monkeypatch.setattr(sys, "argv", ["train.py", *world.overrides(tmp_path / "run", *more)])
    assert train.main(sys.argv[1:]) == 1
    assert "a landmark is not finite" in capfd.readouterr().err


def test_files_of_a_checkpoint_have_the_modes_of_the_umask(world, run_training, tmp_path):
    before = os.umask(0o022)
    try:
        run_training(world.settings(tmp_path / "run", "optimization.steps=1"))
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 8 and {path.stat().st_mode & 0o777 for path in files} == {0o644}
