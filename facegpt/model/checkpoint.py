"""Checkpoints: a directory with the adapter, the face head and a description, and nothing of any head model.

    adapter.safetensors    LoRA and the two vocabulary rows of `<FACE>`, under PEFT's names
    face_head.safetensors  the face head's weights
    facegpt.json           backbone, LoRA, layout, mean, head id, versions, and what the caller adds

A merged checkpoint (`merge_lora`) has the whole backbone in Hugging Face layout instead of the adapter.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

import peft
import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

import facegpt
from facegpt.errors import CheckpointError, ConfigError, HeadMismatchError
from facegpt.files import atomic_directory
from facegpt.head.model import HeadModel
from facegpt.head.parameters import ParameterLayout
from facegpt.model.backbone import load_backbone
from facegpt.model.facegpt import FaceGPT, backbone_fingerprint, build_facegpt
from facegpt.model.spec import FaceGPTSpec, FaceHeadSettings, LoraSettings
from facegpt.model.weights import rounded_weights

FORMAT = 1
OLD_FINGERPRINT = 8
LARGEST_DESCRIPTION = 16_000_000  # bytes
INSIDE = "."  # as the backbone of a merged checkpoint: in the same directory
DESCRIPTION, ADAPTER, FACE_HEAD = "facegpt.json", "adapter.safetensors", "face_head.safetensors"


def save_checkpoint(
    model: FaceGPT, directory: str | Path, head_id: str, extra: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint; an older one of the same name is replaced only when the new one is complete.

    head_id: id of the head model whose parameters the model has learnt. extra: JSON values of the caller,
    such as step and metrics.

    Raises CheckpointError when a trained tensor is an empty shard, as ZeRO-3 leaves them outside of its
    gathering.
    """
    weights = _trained_tensors(model)
    with atomic_directory(directory) as temporary:
        _write_description(temporary, model.spec, head_id, extra or {})
        for name, tensors in weights.items():
            _write_tensors(tensors, temporary / name)


def load_facegpt(
    directory: str | Path,
    head: HeadModel | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str = "auto",
    backbone: str | Path | tuple[PreTrainedModel, ProcessorMixin] | None = None,
    merge: bool = False,
) -> tuple[FaceGPT, ProcessorMixin]:
    """The model of a checkpoint, in eval mode, and its processor.

    head: the head model in use, None to skip the comparison. dtype: of the backbone, see
    `load_backbone`. backbone: where the backbone lies now if it has moved since, or the loaded one.
    merge: add LoRA and the `<FACE>` rows to the backbone, for a model that only speaks: PEFT copies the whole
    vocabulary twice per token. Such a model is not for `save_checkpoint`.

    Raises CheckpointError when the checkpoint is incomplete or does not fit the backbone, HeadMismatchError
    when it belongs to another head model.
    """
    directory = Path(directory)
    description = read_description(directory)
    if head is not None and not head.has_id(description["head_id"]):
        raise HeadMismatchError(
            f"{directory} was trained with head model {description['head_id']}, but {head.id} is loaded; "
            "parameters of one head mean nothing to another, so load the head it was trained with"
        )
    spec = _spec_from_json(description, directory)
    if isinstance(backbone, tuple):
        vlm, processor = backbone
    else:
        recorded = directory if spec.backbone == INSIDE else spec.backbone
        vlm, processor = load_backbone(backbone or recorded, dtype, device)
    here, there = torch.tensor(backbone_fingerprint(vlm)), torch.tensor(spec.fingerprint)
    if len(there) == OLD_FINGERPRINT:  # of version 0.1, of the vocabulary alone
        here = here[:OLD_FINGERPRINT]
    if here.shape != there.shape or not torch.allclose(here, there, rtol=0.02, atol=1e-4):
        raise CheckpointError(
            f"{directory} was trained on other weights than {vlm.name_or_path} has; give the backbone it was "
            f"trained on ({spec.backbone})"
        )
    model = build_facegpt(vlm, processor, spec.layout, torch.tensor(spec.mean), spec.lora, spec.head)
    load_weights(model, directory)
    if merge and isinstance(model.backbone, PeftModel):
        model.backbone = model.backbone.merge_and_unload()  # sums in float32, as LoRA is, and rounds once
    return model.to(device), processor


def load_weights(model: FaceGPT, directory: str | Path) -> None:
    """Put the trained weights of a checkpoint into a model of the same build.

    Raises CheckpointError naming the first tensor that is missing, unexpected or of another shape.
    """
    directory = Path(directory)
    for name, expected in _trained_tensors(model).items():
        loaded = _read_tensors(directory / name)
        _verify(loaded, expected, directory / name)
        if name == ADAPTER:
            set_peft_model_state_dict(model.backbone, loaded)
        else:
            model.face_head.load_state_dict(loaded, strict=True)


def merge_lora(
    directory: str | Path,
    output: str | Path,
    dtype: torch.dtype = torch.bfloat16,
    backbone: str | Path | tuple[PreTrainedModel, ProcessorMixin] | None = None,
) -> None:
    """Write a checkpoint whose backbone has LoRA and the `<FACE>` rows added in; it needs no PEFT to run.

    The sum is made in float32 and rounded to `dtype` once, at the end: added in bfloat16, small updates are
    lost against large weights. `output` is a checkpoint for `load_facegpt` and at the same time a plain
    Hugging Face model directory.
    """
    model, processor = load_facegpt(directory, None, "cpu", torch.float32, backbone)
    if not isinstance(model.backbone, PeftModel):
        raise CheckpointError(f"{directory} is merged already")
    description = read_description(Path(directory))
    head_tensors = _trained_tensors(model)[FACE_HEAD]
    merged = model.backbone.merge_and_unload()
    weights = rounded_weights(merged, dtype)
    spec = replace(model.spec, backbone=INSIDE, lora=None)
    with atomic_directory(output) as temporary:
        _write_description(temporary, spec, description["head_id"], description.get("extra", {}))
        merged.save_pretrained(temporary, state_dict=weights)
        processor.save_pretrained(temporary)
        _write_tensors(head_tensors, temporary / FACE_HEAD)
        for file in temporary.glob("*.safetensors"):
            shutil.copymode(temporary / DESCRIPTION, file)


def read_description(directory: str | Path) -> dict[str, Any]:
    """The content of facegpt.json, at most 16 MB.

    Raises CheckpointError when it is missing, not readable, broken, too large, of a later format, or names no
    head.
    """
    path = Path(directory) / DESCRIPTION
    with _opened(path) as file:
        content = file.read(LARGEST_DESCRIPTION + 1)
    if len(content) > LARGEST_DESCRIPTION:
        raise CheckpointError(f"{path} is larger than {LARGEST_DESCRIPTION} bytes, so it is none of ours")
    try:
        description = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not of format {FORMAT}, which this version of facegpt reads")
    if not isinstance(description.get("head_id"), str):
        raise CheckpointError(f"{path} lacks values or has strange ones: head_id is not a text")
    return description


def run_checkpoints(run: str | Path) -> list[Path]:
    """The complete checkpoints of a run directory, by step: checkpoints/step_000500, step_001000, ...

    The description is written last and removed first, so what has one is whole.
    """
    found = [file.parent for file in Path(run).glob(f"checkpoints/step_*/{DESCRIPTION}")]
    numbered = [path for path in found if re.fullmatch("step_[0-9]+", path.name)]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("step_")))


def _opened(path: Path) -> BinaryIO:
    """The open file, or a CheckpointError that says why there is none."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise CheckpointError(f"{path} is no file")
        return path.open("rb")
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint {path.parent} lacks {path.name}") from None
    except OSError as error:  # the file of another user, a folder in its place
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def _trained_tensors(model: FaceGPT) -> dict[str, dict[str, Tensor]]:
    """File name -> tensors (contiguous, on the CPU, with memory of their own)."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.numel() == 0:
            raise CheckpointError(f"{name} is an empty shard; gather the weights of all ranks before saving")
    state = model.state_dict()
    files = {FACE_HEAD: _below(state, "face_head.")}
    if isinstance(model.backbone, PeftModel):
        inner = _below(state, "backbone.")
        # save_embedding_layers=False: its "auto" asks the hub, and would store the whole embedding
        files[ADAPTER] = get_peft_model_state_dict(model.backbone, inner, save_embedding_layers=False)
    return {
        file: {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
        for file, tensors in files.items()
    }


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """safetensors makes files for their owner alone; ours follow the umask, as facegpt.json beside them."""
    save_file(tensors, path)
    shutil.copymode(path.with_name(DESCRIPTION), path)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _write_description(directory: Path, spec: FaceGPTSpec, head_id: str, extra: dict[str, Any]) -> None:
    description = {
        "format": FORMAT,
        "head_id": head_id,
        **asdict(spec),
        "versions": {
            "facegpt": facegpt.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "extra": extra,
    }
    text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def _spec_from_json(description: dict[str, Any], directory: Path) -> FaceGPTSpec:
    try:
        lora, head = description["lora"], description["head"]
        return FaceGPTSpec(
            backbone=description["backbone"],
            layout=ParameterLayout(**description["layout"]),
            mean=tuple(description["mean"]),
            lora=None if lora is None else LoraSettings(**{**lora, "targets": tuple(lora["targets"])}),
            head=FaceHeadSettings(
                widths=None if head["widths"] is None else tuple(head["widths"]),
                scales={name: tuple(values) for name, values in head["scales"].items()},
                reads_image=head.get("reads_image", False),  # older checkpoints do not say
                text_layer=head.get("text_layer"),
            ),
            fingerprint=tuple(description["fingerprint"]),
        )
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"{directory / DESCRIPTION} lacks values or has strange ones: {error}"
        ) from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    _opened(path).close()
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); take another checkpoint") from None


def _verify(loaded: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    missing, unexpected = sorted(expected.keys() - loaded.keys()), sorted(loaded.keys() - expected.keys())
    if missing or unexpected:
        what = f"lacks {missing[0]}" if missing else f"has an unexpected {unexpected[0]}"
        raise CheckpointError(f"{path} {what}; it belongs to another build of the model")
    for name, tensor in loaded.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)}, the model needs {tuple(expected[name].shape)}"
            )
