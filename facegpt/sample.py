"""The nouns that all rooms share: special tokens, face record, face target, message, sample, batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

IMAGE_TOKEN = "<image>"
FACE_TOKEN = "<FACE>"
REFERENCE_SIZE = 224  # distances of landmarks are expressed in pixels of a crop of this side


@dataclass
class FaceRecord:
    """One photograph of one face as it lies on disk (a parquet row, or an image beside a landmark file).

    image: RGB PIL image, already a square crop around the face; what renderings are compared with.
    view: a wider square around the same center, for the vision tower; None where it is shown `image`.
    landmarks (68,2): pixels of `image`, x right, y down, pixel centres at half integers, iBUG order.
    skin_mask: (H,W) in [0,1] like `image`, or None (then computed from colour, `facegpt.perception.skin`).
    parameters (N,): FaceParameters vector of a synthetic face; for evaluation only, None for photographs.
    description: aspect (shape, expression, colour, light, pose) -> sentence, written by the pretrained VLM.
    conversation: (question, answer) pairs about the photograph, answered by the pretrained VLM.
    texts: whole descriptions in other words, each in a form of `facegpt.data.templates.text_form`.
    looks: adjectives for what the face seems to feel ("furious"); none where no feeling is clear.
    landmark_valid (68,) bool: which landmarks were given; None when all were. The others are estimates that
    nothing is compared with (`facegpt.perception.landmark_files.complete_landmarks`).
    """

    id: str
    image: Image.Image
    landmarks: Tensor
    skin_mask: Tensor | None = None
    parameters: Tensor | None = None
    description: dict[str, str] = field(default_factory=dict)
    conversation: list[tuple[str, str]] = field(default_factory=list)
    landmark_valid: Tensor | None = None
    texts: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    view: Image.Image | None = None

    @property
    def shown(self) -> Image.Image:
        """What the vision tower is shown of the photograph."""
        return self.image if self.view is None else self.view


@dataclass
class FaceTarget:
    """What the self-supervised losses compare a rendering with.

    image (3,S,S) in [0,1]; landmarks (68,2) in pixels of this image; skin_mask (S,S) in [0,1].
    parameters (N,): the true parameter vector of a synthetic face, or None.
    landmark_valid (68,) bool: the landmarks that are compared, None for all.
    """

    image: Tensor
    landmarks: Tensor
    skin_mask: Tensor
    parameters: Tensor | None = None
    landmark_valid: Tensor | None = None


@dataclass
class FaceTargets:
    """The F face targets of a batch: image (F,3,S,S), landmarks (F,68,2), skin_mask (F,S,S).

    parameters: (F,N) when every face has them, else None. landmark_valid: (F,68) bool, None when all of every
    face count.
    """

    image: Tensor
    landmarks: Tensor
    skin_mask: Tensor
    parameters: Tensor | None = None
    landmark_valid: Tensor | None = None

    def __len__(self) -> int:
        return self.image.shape[0]

    def to(self, device: torch.device | str) -> FaceTargets:
        """The targets on a device."""
        return FaceTargets(
            self.image.to(device),
            self.landmarks.to(device),
            self.skin_mask.to(device),
            _move(self.parameters, device),
            _move(self.landmark_valid, device),
        )


@dataclass
class Message:
    """One turn. role is "user" or "assistant"; text may hold `<image>` (user) and `<FACE>` (assistant)."""

    role: str
    text: str


@dataclass
class Sample:
    """One conversation: an image for every `<image>`, a face for every `<FACE>` of its messages, in order."""

    id: str
    source: str
    messages: list[Message]
    images: list[Image.Image] = field(default_factory=list)
    faces: list[FaceTarget] = field(default_factory=list)


@dataclass
class Batch:
    """N conversations, M images, F faces; images and faces in the order of their tokens, row by row.

    input_ids, attention_mask (N,T) int64; label_mask (N,T) bool, True at the tokens that are supervised
    (the token itself, not the position that predicts it); pixel_values (M,3,h,w) or None; faces or None.
    """

    ids: list[str]
    sources: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    label_mask: Tensor
    pixel_values: Tensor | None
    faces: FaceTargets | None

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device, face targets included."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            label_mask=self.label_mask.to(device),
            pixel_values=_move(self.pixel_values, device),
            faces=None if self.faces is None else self.faces.to(device),
        )


def _move(tensor: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)
