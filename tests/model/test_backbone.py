"""Loading, freezing and describing the backbone."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from chat_formats import LLAVA_15_PUBLISHED, SMOLLM2
from small_facegpt import small_backbone, small_facegpt
from torch import nn

from facegpt.errors import CheckpointError, ConfigError
from facegpt.model.backbone import (
    image_features,
    image_token_count,
    load_backbone,
    lora_targets,
)
from facegpt.model.chat_format import VICUNA_TEMPLATE
from facegpt.model.checkpoint import load_facegpt, save_checkpoint
from facegpt.model.spec import LLAMA_LINEAR_LAYERS
from facegpt.standins.tiny_llava import save_tiny_llava


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llava")
    model, processor = small_backbone()
    save_tiny_llava(model, processor, directory)
    return directory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_backbone_is_frozen_and_of_the_wanted_type(folder: Path, dtype: torch.dtype) -> None:
    model, _ = load_backbone(folder, dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(module.training for module in model.modules())


def test_bfloat16_does_not_round_the_rotary_frequencies(folder: Path) -> None:
    model, _ = load_backbone(folder, torch.bfloat16)
    frequencies = model.get_decoder().rotary_emb.inv_freq
    head_width = 16
    expected = 10000.0 ** -(torch.arange(0, head_width, 2).double() / head_width)
    assert torch.allclose(frequencies.double(), expected, rtol=1e-6)


def test_auto_asks_the_processor_for_bfloat16(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for fast in ((True, False), (False, True), (False, False)):
        for name, value in zip(names, fast, strict=True):
            monkeypatch.setattr(torch.cpu, name, lambda value=value: value)
        assert load_backbone(folder)[0].dtype == (torch.bfloat16 if any(fast) else torch.float32)
    for name in names:
        monkeypatch.delattr(torch.cpu, name)
    assert load_backbone(folder)[0].dtype == torch.float32


def test_an_old_snapshot_gets_its_missing_fields_and_our_template(folder: Path, tmp_path: Path) -> None:
    model, processor = small_backbone()
    processor.patch_size = processor.vision_feature_select_strategy = None
    processor.num_additional_image_tokens = 0
    processor.chat_template = LLAVA_15_PUBLISHED
    save_tiny_llava(model, processor, tmp_path)
    _, loaded = load_backbone(tmp_path)
    assert loaded.chat_template == VICUNA_TEMPLATE
    assert image_token_count(loaded) == image_token_count(load_backbone(folder)[1]) == 4


def test_image_tokens_are_as_many_as_the_tower_gives() -> None:
    model, processor = small_backbone()
    features = image_features(model, torch.zeros(3, 3, 32, 32))
    assert features.shape == (3 * image_token_count(processor), 32)


@pytest.mark.parametrize("path", ["./no/such/folder", "/no/such/folder"])
def test_a_missing_folder_is_named(path: str) -> None:
    with pytest.raises(CheckpointError, match="no/such/folder"):
        load_backbone(path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))):
        load_backbone(tmp_path)


def test_an_unknown_type_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="float8"):
        load_backbone(folder, "float8")


def test_lora_targets_are_the_linear_layers_of_the_language_model() -> None:
    model, _ = small_backbone()
    expression = lora_targets(model, LLAMA_LINEAR_LAYERS)
    hits = {name for name, _ in model.named_modules() if re.fullmatch(expression, name)}
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert hits == {name for name in linear if "vision_tower" not in name and "language_model" in name}
    # the danger: the vision tower has layers of the same names
    assert any(name.endswith("q_proj") and "vision_tower" in name for name in linear)


def test_a_target_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="w_pack"):
        lora_targets(small_backbone()[0], ("q_proj", "w_pack"))


def test_a_target_that_is_no_linear_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="no linear layer"):
        lora_targets(small_backbone()[0], ("self_attn",))


@pytest.mark.parametrize("kind", ["llava", "unknown"])
@pytest.mark.parametrize("through", ["folder", "checkpoint"])
def test_code_in_a_backbone_folder_never_runs_and_nobody_is_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, through: str
) -> None:
    place, ran = tmp_path / "planted", tmp_path / "ran"
    shutil.copytree(folder, place)
    (place / "planted.py").write_text(f"open({str(ran)!r}, 'w')\n")
    names = (
        "AutoConfig",
        "AutoProcessor",
        "AutoTokenizer",
        "AutoImageProcessor",
        "AutoModelForImageTextToText",
    )
    for file in ("config.json", "processor_config.json", "tokenizer_config.json"):
        content = json.loads((place / file).read_text())
        content["auto_map"] = {name: "planted.Planted" for name in names}
        content["auto_map"]["AutoTokenizer"] = ["planted.Planted", "planted.Planted"]
        if kind == "unknown" and file == "config.json":
            content["model_type"] = "planted"
        (place / file).write_text(json.dumps(content))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    if through == "checkpoint":
        model = small_facegpt(backbone=load_backbone(folder, torch.float32))
        save_checkpoint(model, tmp_path / "run", "head")
        description = tmp_path / "run" / "facegpt.json"
        description.write_text(description.read_text().replace(str(folder), str(place)))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))

    def load() -> object:
        return load_facegpt(tmp_path / "run", None) if through == "checkpoint" else load_backbone(place)

    if kind == "unknown":
        with pytest.raises(CheckpointError, match="facegpt runs none") as caught:
            load()
        assert "\n" not in str(caught.value)
    else:  # a model that transformers knows is built by transformers
        load()
    assert not ran.exists() and sys.stdin.read() == "y\ny\ny\n"


def test_a_hostile_pytorch_model_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    place, ran = tmp_path / "planted", tmp_path / "ran"
    shutil.copytree(folder, place)
    (place / "model.safetensors").unlink()

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return open, (str(ran), "w")

    torch.save({"weight": Payload()}, place / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="planted is not a readable") as caught:
        load_backbone(place)
    assert not ran.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["https://example.org/model", "a/b/c", "../x", "nothing here", ""])
def test_what_is_neither_a_folder_nor_the_name_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="folder or the id"):
        load_backbone(name)


def test_a_backbone_keeps_its_own_chat_template_and_pads_with_its_end(tmp_path: Path) -> None:
    model, processor = small_backbone()
    template = SMOLLM2.replace("<|im_end|>", "</s>").replace("<|im_start|>", "<s>")
    processor.chat_template = template
    processor.tokenizer.pad_token = None
    save_tiny_llava(model, processor, tmp_path)
    _, loaded = load_backbone(tmp_path)
    assert loaded.chat_template == template
    assert loaded.tokenizer.pad_token == "</s>"


def test_a_template_that_cannot_be_followed_is_refused_before_the_weights_are_read(tmp_path: Path) -> None:
    model, processor = small_backbone()
    processor.chat_template = "{{ messages[0]['content'] }}"
    save_tiny_llava(model, processor, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="chat template"):
        load_backbone(tmp_path)
