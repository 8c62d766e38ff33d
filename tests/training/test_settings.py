"""Configuration files and what they may not say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from recipes import load_recipe

from facegpt.config import load_config, save_config
from facegpt.errors import ConfigError
from facegpt.training.engine import deepspeed_config
from facegpt.training.settings import OptimizationSettings, TrainSettings

SynthesisSettings = load_recipe("data_gen/synthesize.py").SynthesisSettings

CONFIGS = Path(__file__).parents[2] / "configs"
SOURCE = "data.sources.faces={kind: image_to_face, path: faces}"


def test_every_file_under_configs_is_known_to_this_test():
    known = {"train.yaml": TrainSettings, "data.yaml": SynthesisSettings, "worn.yaml": SynthesisSettings}
    known["prepare.yaml"] = load_recipe("data_gen/prepare.py").PrepareSettings
    files = [path for path in CONFIGS.rglob("*") if path.is_file()]
    assert len(files) >= 6
    for path in files:
        if path.suffix == ".json":
            assert path.parent.name == "deepspeed"
        else:
            given = ["photographs=there", "out=here"] if path.name == "prepare.yaml" else []
            load_config(known[path.name], path, given)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("train.yaml")), ids=lambda path: path.parent.name)
def test_only_the_small_configuration_learns_from_parameters_and_every_deepspeed_file_exists(path):
    settings = load_config(TrainSettings, path)
    assert (settings.objective.parameters > 0.0) == (path.parent.name == "small")
    assert (CONFIGS.parent / settings.optimization.deepspeed).is_file()


@pytest.mark.parametrize("folder", [None, "llava-7b", "photos"])
def test_the_objective_is_the_methods_by_default_and_in_the_real_configurations(folder):
    path = None if folder is None else CONFIGS / folder / "train.yaml"
    loaded = load_config(TrainSettings, path, [] if folder else ["run=a", SOURCE]).objective
    assert (loaded.text, loaded.face) == (1.0, 0.1)
    assert (loaded.pixel, loaded.perceptual, loaded.landmark, loaded.regularization) == (0.5, 0.25, 5e-4, 0.1)


def test_the_real_configuration_has_the_published_numbers():
    loaded = load_config(TrainSettings, CONFIGS / "llava-7b" / "train.yaml")
    assert loaded.model.backbone == "llava-hf/llava-1.5-7b-hf"
    optimization = loaded.optimization
    assert (optimization.lr, optimization.weight_decay, optimization.warmup) == (2e-5, 0.0, 100)
    assert (optimization.batch, optimization.accumulation) == (8, 4)
    assert {source.kind for source in loaded.data.sources.values()} == {
        "image_to_face",
        "text_to_face",
        "instruct",
    }


def test_settings_survive_their_yaml(tmp_path):
    settings = load_config(TrainSettings, None, ["run=a", SOURCE, "model.face_head.widths=[64, 32]"])
    save_config(settings, tmp_path / "config.yaml")
    assert load_config(TrainSettings, tmp_path / "config.yaml") == settings


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("optimization.step=5", "optimization.steps"),
        ("objective.landmarks=1", "objective.landmark"),
        ("model.lora.rnak=4", "rnak"),
        ("data.sources.faces.kind=video", "kind"),
        ("data.sources.faces.weight=0", "no source"),
        ("data.sources.typo.weight=1", "data.sources.typo"),
        ("optimization.batch=0", "optimization.batch"),
        ("objective.face=-1", "objective.face"),
        ("optimization.lr=fast", "optimization.lr"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(override, word):
    with pytest.raises(ConfigError, match=word):
        load_config(TrainSettings, None, ["run=a", SOURCE, override])


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_gets_the_batch_of_the_yaml_and_autocast_only_with_bfloat16(stage):
    settings = OptimizationSettings(
        batch=3, accumulation=5, deepspeed=str(CONFIGS / f"deepspeed/zero{stage}.json")
    )
    config = deepspeed_config(settings, bfloat16=True)
    assert config["zero_optimization"]["stage"] == stage
    assert config["train_micro_batch_size_per_gpu"] == 3
    assert config["gradient_accumulation_steps"] == 5
    autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    assert config["torch_autocast"] == autocast
    assert hasattr(torch, config["torch_autocast"]["dtype"])
    assert "torch_autocast" not in deepspeed_config(settings, bfloat16=False)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (json.dumps({"train_batch_size": 4}), "train_batch_size"),
        ("{", "not JSON"),
        (None, "does not exist"),
    ],
)
def test_a_deepspeed_file_that_cannot_be_used_is_an_error(tmp_path, content, word):
    path = tmp_path / "zero.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=word):
        deepspeed_config(OptimizationSettings(deepspeed=str(path)), bfloat16=False)
