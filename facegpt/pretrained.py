"""Loading, saving and sharing a FaceGPT: what its methods of these names do (`facegpt.model.hub`)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download
from peft import PeftModel

from facegpt.chat import newest_checkpoint
from facegpt.errors import CheckpointError
from facegpt.files import atomic_directory, atomic_path
from facegpt.head.model import HeadModel
from facegpt.machine import choose_device
from facegpt.model.backbone import MODEL_ID
from facegpt.model.checkpoint import (
    ADAPTER,
    DESCRIPTION,
    FACE_HEAD,
    INSIDE,
    load_facegpt,
    read_description,
    save_checkpoint,
)
from facegpt.model.facegpt import FaceGPT
from facegpt.model_card import METRICS, model_card, run_file

CARD = "README.md"
# The files of a checkpoint: no code, no pickle.
SHARED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", METRICS)


def load_pretrained(
    path: str | Path | None,
    head: HeadModel | str | Path | None,
    device: str,
    dtype: torch.dtype | str,
    backbone: str | Path | None,
    merge: bool,
) -> FaceGPT:
    """See `FaceGPT.from_pretrained`."""
    folder = newest_checkpoint(_fetched(path))
    if isinstance(head, str | Path):
        head = HeadModel.open(head)
    model, _ = load_facegpt(folder, head, choose_device(device), dtype, backbone, merge)
    model.origin = folder
    return model


def _fetched(path: str | Path | None) -> str | Path | None:
    """The folder of a repository on the hub, in the hub's cache; every other path as it is."""
    if path is None or Path(path).exists() or not ("/" in str(path) and MODEL_ID.fullmatch(str(path))):
        return path
    try:
        return snapshot_download(str(path), allow_patterns=list(SHARED))
    except Exception as error:  # no such repository, no network, no permission: dozens of types
        raise CheckpointError(
            f"there is no folder {path}, and the hub does not give a repository of that name: {_line(error)}"
        ) from error


def save_pretrained(
    model: FaceGPT, folder: Path, head_id: str | None = None, results: Sequence[str | Path] = ()
) -> None:
    """See `FaceGPT.save_pretrained`."""
    ours = (folder / DESCRIPTION).is_file() or (folder.is_dir() and not any(folder.iterdir()))
    if folder.exists() and not ours:
        raise CheckpointError(f"{folder} exists and is no checkpoint; name a new folder")
    origin = model.origin
    described = {} if origin is None else read_description(origin)
    head_id = head_id or described.get("head_id")
    if head_id is None:
        raise CheckpointError(
            "the model comes from no checkpoint; say which head it speaks of: head_id=head.id"
        )
    card = model_card(model, head_id, origin, results)
    metrics = None if origin is None else run_file(origin, METRICS)
    rows = None if metrics is None else metrics.read_bytes()  # the folder may be where they lie
    merged = described.get("backbone") == INSIDE
    if merged or (model.spec.lora is not None and not isinstance(model.backbone, PeftModel)):
        _copy(origin, folder, merged)
    else:
        save_checkpoint(model, folder, head_id, described.get("extra"))
    for name, content in ((METRICS, rows), (CARD, card.encode())):
        if content is not None:
            with atomic_path(folder / name) as path:
                path.write_bytes(content)


def _copy(origin: Path | None, folder: Path, merged: bool) -> None:
    """The files of the checkpoint that a model without a trainable adapter came from."""
    if origin is None:
        raise CheckpointError("LoRA was added to the backbone; save the model before that")
    if folder.resolve() == origin.resolve():
        return
    names = [DESCRIPTION, ADAPTER, FACE_HEAD]
    if merged:
        names = [file.name for pattern in SHARED for file in origin.glob(pattern)]
    with atomic_directory(folder) as temporary:
        for name in names:
            shutil.copy(origin / name, temporary)


def push_to_hub(
    model: FaceGPT,
    name: str,
    head_id: str | None = None,
    results: Sequence[str | Path] = (),
    private: bool = True,
    token: str | None = None,
) -> str:
    """See `FaceGPT.push_to_hub`."""
    with tempfile.TemporaryDirectory(prefix="facegpt-") as temporary:
        folder = Path(temporary) / "model"
        save_pretrained(model, folder, head_id, results)
        backbone = read_description(folder)["backbone"]
        if backbone != INSIDE and (Path(backbone).exists() or not MODEL_ID.fullmatch(backbone)):
            raise CheckpointError(
                f"the backbone is {backbone}, a folder that nobody else has; push what `facegpt merge` makes"
            )
        try:
            api = HfApi(token=token)
            address = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload a FaceGPT")
        except Exception as error:  # names, rights, network: dozens of types
            raise CheckpointError(f"the hub does not take {name}: {_line(error)}") from error
    return str(address)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
