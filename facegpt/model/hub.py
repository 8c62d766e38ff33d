"""The methods of FaceGPT that models on the hub have: from_pretrained, save_pretrained, push_to_hub.

What they do needs rooms above this one (the model that ships, model cards), so `facegpt.pretrained` is looked
up by its name when one is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

if TYPE_CHECKING:
    from facegpt.head.model import HeadModel

Model = TypeVar("Model", bound="HubMethods")


class HubMethods:
    """A base of FaceGPT. origin: the checkpoint it was loaded from, if it was."""

    origin: Path | None = None

    @classmethod
    def from_pretrained(
        cls: type[Model],
        path: str | Path | None = None,
        head: HeadModel | str | Path | None = "builtin",
        device: str = "auto",
        dtype: torch.dtype | str = "auto",
        backbone: str | Path | None = None,
        merge: bool = True,
    ) -> Model:
        """A trained model in eval mode: the one that ships, or that of `path`.

        path: a checkpoint, a run (its newest checkpoint), or the name of a repository on the hub
        ("owner/name"), of which only JSON and safetensors are fetched. head: the head model, its file or
        "builtin"; None skips the comparison with the checkpoint's. device: "auto" is the GPU where there is
        one. dtype, backbone: see `facegpt.model.checkpoint.load_facegpt`. merge: LoRA is added to the
        backbone, for a model that only speaks; False for one that is trained on.

        Raises CheckpointError, HeadMismatchError, MissingPartError for parts that were not fetched.
        """
        return cast(Model, _functions().load_pretrained(path, head, device, dtype, backbone, merge))

    def save_pretrained(
        self, folder: str | Path, head_id: str | None = None, results: Sequence[str | Path] = ()
    ) -> None:
        """Write a checkpoint with a model card, README.md, that is made from the run.

        A model that was loaded with `merge` is written as it was loaded. head_id: of the head whose
        parameters were learnt, for a model that was not loaded from a checkpoint. results: JSON files of the
        evaluation recipes, whose numbers the card shows.

        Raises CheckpointError when `folder` holds something else, and without any head id.
        """
        _functions().save_pretrained(self, Path(folder), head_id, results)

    def push_to_hub(
        self,
        name: str,
        head_id: str | None = None,
        results: Sequence[str | Path] = (),
        private: bool = True,
        token: str | None = None,
    ) -> str:
        """Put what `save_pretrained` writes on the hub, as the repository "owner/name"; its address.

        private: whether a repository that is made is nobody else's. token: else that of `hf auth login`.
        Raises CheckpointError for a backbone that is a folder here, and when the hub refuses.
        """
        return cast(str, _functions().push_to_hub(self, name, head_id, results, private, token))


def _functions() -> Any:
    return import_module("facegpt.pretrained")
