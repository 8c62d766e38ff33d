"""What is found before a run goes on: damage, other settings, somebody else at work, foreign code."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_head import small_head

from facegpt.errors import CheckpointError, ConfigError, RunFinished, TrainingError
from facegpt.model.backbone import resolve_dtype
from facegpt.training.lock import LOCK, lock
from facegpt.training.optimizer_state import check_can_be_saved
from facegpt.training.resume import checkpoint_to_resume
from facegpt.training.runs import Run
from facegpt.training.settings import TrainSettings

# than "auto" takes on this machine
OTHER_DTYPE = "float32" if resolve_dtype("auto", "cpu") == torch.bfloat16 else "bfloat16"

MORE = ("checkpoint.keep=-1", "optimization.steps=2", "checkpoint.every=1")


@pytest.fixture(scope="module")
def whole(world, run_training, tmp_path_factory) -> Path:
    """A run of two steps with the checkpoints of both."""
    run = tmp_path_factory.mktemp("whole") / "run"
    run_training(world.settings(run, *MORE))
    return run


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def resumed(world, ranks, run):
    """What a resumed run of four steps starts from, with more settings."""

    def start(*more: str) -> Path | None:
        settings = world.settings(run, *MORE, "optimization.steps=4", "resume=true", *more)
        return checkpoint_to_resume(settings, small_head(), ranks)

    return start


def test_it_goes_on_from_the_newest_by_number_also_beyond_six_digits(run, resumed):
    assert resumed() == run / "checkpoints" / "step_000002"
    shutil.copytree(run / "checkpoints" / "step_000002", run / "checkpoints" / "step_1000002")
    shutil.copytree(run / "checkpoints" / "step_000001", run / "checkpoints" / "step_999999")
    assert resumed() == run / "checkpoints" / "step_1000002"


@pytest.mark.parametrize(
    "name", ["optimizer/rank_00.safetensors", "adapter.safetensors", "face_head.safetensors", "training.json"]
)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing"])
def test_damage_in_any_file_is_a_sentence_that_names_the_older_whole_checkpoint(run, resumed, name, damage):
    path = run / "checkpoints" / "step_000002" / name
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"flipped": content, "truncated": content[:middle], "empty": b""}[damage])
    with pytest.raises(CheckpointError) as caught:
        resumed()
    sentence = str(caught.value)
    assert path.name in sentence and "\n" not in sentence
    assert f"step_000001 is whole: remove {path.parents[len(Path(name).parts) - 1]}" in sentence
    shutil.rmtree(run / "checkpoints" / "step_000002")
    assert resumed() == run / "checkpoints" / "step_000001"


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", '{"step": "x"}', '{"step": 2, "format": 2}', "[" * 100_000]
)
def test_a_strange_training_json_is_a_sentence(run, resumed, text):
    (run / "checkpoints" / "step_000002" / "training.json").write_text(text)
    with pytest.raises(CheckpointError, match="step_000001 is whole"):
        resumed()


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 1}', '{"format": 1, "extra": 5}', "{"])
def test_a_strange_facegpt_json_is_a_sentence(run, resumed, text):
    for step in ("step_000001", "step_000002"):
        (run / "checkpoints" / step / "facegpt.json").write_text(text)
    with pytest.raises(CheckpointError, match="no older checkpoint is whole"):
        resumed()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "optimization.batch=1",
        "optimization.accumulation=1",
        "optimization.lr=2e-3",
        "optimization.warmup=3",
        "optimization.clip=2",
        "objective.landmark=1",
        "data.render_size=32",
        "data.max_length=200",
        "data.sources.chat.weight=3",
        "data.sources.chat.path=other.json",
        "data.sources.photographs.kind=text_to_face",
        f"model.dtype={OTHER_DTYPE}",
        "model.lora.rank=8",
        "model.face_head.widths=[8]",
        "model.face_head.scales={pose: [5]}",
        "model.neck=true",
    ],
)
def test_every_setting_that_changes_the_run_must_be_as_it_was(resumed, override):
    key = override.partition("=")[0]
    with pytest.raises(CheckpointError, match=rf"another {key} \(.*, now .*\); resume with the old settings"):
        resumed(override)


def test_a_source_more_or_another_folder_is_found_and_what_changes_nothing_is_allowed(resumed, world):
    with pytest.raises(CheckpointError, match=r"list of data\.sources"):
        resumed(f"data.sources.more={{kind: image_to_face, path: {world.path / 'faces'}}}")
    with pytest.raises(CheckpointError, match=r"list of data\.sources"):
        resumed("data.sources.chat.weight=0")
    assert resumed("logging.every=5", "checkpoint.keep=1", "data.check=0", "validation.faces=2")


def test_the_file_of_deepspeed_counts_by_its_content(resumed, tmp_path):
    config = json.loads(Path("configs/deepspeed/zero2.json").read_text())
    same, other = tmp_path / "same.json", tmp_path / "other.json"
    same.write_text(json.dumps(config))
    assert resumed(f"optimization.deepspeed={same}")
    config["zero_optimization"]["stage"] = 1
    other.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"DeepSpeed zero_optimization\.stage \(2, now 1\)"):
        resumed(f"optimization.deepspeed={other}")


def test_a_finished_run_is_no_failure(resumed):
    with pytest.raises(RunFinished, match="is finished at step 2"):
        resumed("optimization.steps=2")


def test_a_second_process_is_refused_and_told_who_is_there(run, resumed):
    code = (
        "import sys, time; from pathlib import Path; from facegpt.training.lock import lock\n"
        "held = lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match=f"in use by process {other.pid} on "):
            resumed()
        with pytest.raises(ConfigError, match=f"in use by process {other.pid} on "):
            lock(run)
        other.kill()  # the kernel gives the lock back
    assert resumed()
    lock(run).close()
    assert resumed() and (run / LOCK).exists()


@pytest.mark.parametrize(
    ("nvme", "optimizer", "word"),
    [
        (True, {}, "NVMe"),
        (False, {"elastic_checkpoint": True}, "elastic_checkpoint"),
        (False, {"state_dict": lambda: {"scaler": object()}}, "holds a object"),
    ],
)
def test_a_state_that_no_checkpoint_can_hold_is_found_before_the_first_step(nvme, optimizer, word):
    engine = SimpleNamespace(zero_nvme_offload_optimizer=lambda: nvme, optimizer=SimpleNamespace(**optimizer))
    with pytest.raises(TrainingError, match=word):
        check_can_be_saved(engine)


class Planted:
    """A pickle that writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def in_the_old_form(checkpoint: Path, engine, settings: TrainSettings) -> None:
    """Make a checkpoint one of the former version, with DeepSpeed's own files."""
    shutil.rmtree(checkpoint / "optimizer")
    engine.save_checkpoint(
        str(checkpoint), tag="optimizer", save_latest=False, exclude_frozen_parameters=True
    )
    (checkpoint / "checksums.json").unlink()
    state = json.loads((checkpoint / "training.json").read_text())
    model = {"backbone": settings.model.backbone, "neck": False, "eyes": False, **vars(settings.model.lora)}
    stage = Path(settings.optimization.deepspeed).name
    old = {"step": 2, "head": state["head"], "ranks": 1, "model": model, "stage": stage}
    (checkpoint / "training.json").write_text(json.dumps(old))


@pytest.fixture(params=["zero0", "zero1", "zero2", "zero3"])
def old(request, world, run_training, tmp_path):
    """Metrics of a run of four steps, the same run as it was at step 2 in the old form, and its overrides."""
    file = tmp_path / f"{request.param}.json"
    stage = int(request.param[-1])
    zero = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    file.write_text(json.dumps({"zero_optimization": zero}))
    more = [f"optimization.deepspeed={file}", "checkpoint.keep=-1"]
    settings = world.settings(tmp_path / "whole", *more)
    kept = tmp_path / "kept"

    def also_as_old(self, step, engine, model, meter, needed=False):
        final = original(self, step, engine, model, meter, needed)
        if step == 2:
            shutil.copytree(self.path, kept)
            in_the_old_form(kept / "checkpoints" / "step_000002", engine, settings)
        return final

    original = Run.checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "checkpoint", also_as_old)
        rows = run_training(settings)
    return rows, kept, more


def test_a_checkpoint_of_the_former_version_goes_on_as_if_nothing_had_happened(world, run_training, old):
    rows, kept, more = old
    resumed = run_training(world.settings(kept, *more, "resume=true"))
    for expected, actual in zip(rows, resumed, strict=True):
        same = {key: value for key, value in expected.items() if not key.startswith(("time", "speed"))}
        assert {key: actual[key] for key in same} == same


@pytest.mark.parametrize("old", ["zero2"], indirect=True)
@pytest.mark.parametrize(
    "override", ["model.lora.alpha=4", "optimization.deepspeed=configs/deepspeed/zero3.json"]
)
def test_what_the_former_version_compared_is_still_compared(world, ranks, old, override):
    _, kept, more = old
    settings = world.settings(kept, *more, "resume=true", override)
    with pytest.raises(CheckpointError, match=f"another {override.partition('=')[0]} "):
        checkpoint_to_resume(settings, small_head(), ranks)


@pytest.mark.parametrize("old", ["zero2"], indirect=True)
def test_a_pickle_planted_in_a_checkpoint_is_not_run(world, ranks, old, tmp_path):
    _, kept, more = old
    settings = world.settings(kept, *more, "resume=true")
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        path = kept / "checkpoints" / "step_000002" / "optimizer" / name
        content = path.read_bytes()
        proof = tmp_path / f"ran_{name}"
        for hostile in (pickle.dumps(Planted(proof)), None):
            if hostile is None:
                torch.save({"module": Planted(proof)}, path)
            else:
                path.write_bytes(hostile)
            with pytest.raises(CheckpointError, match=name):
                checkpoint_to_resume(settings, small_head(), ranks)
            assert not proof.exists()
        path.write_bytes(content)
    assert checkpoint_to_resume(settings, small_head(), ranks)


def test_a_pickle_beside_the_new_files_is_not_read(world, run, run_training, tmp_path):
    proof = tmp_path / "ran"
    folder = run / "checkpoints" / "step_000002" / "optimizer"
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        (folder / name).write_bytes(pickle.dumps(Planted(proof)))
    rows = run_training(world.settings(run, *MORE, "optimization.steps=3", "resume=true"))
    assert [row["step"] for row in rows] == [1, 2, 3] and not proof.exists()
