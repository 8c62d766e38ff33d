"""What a checkpoint has to know to build its model again; every value is checked where it is made.

The values come from a training configuration or from a stranger's facegpt.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from facegpt.errors import ConfigError
from facegpt.head.parameters import ParameterLayout

LLAMA_LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LARGEST_RANK = 1024
LARGEST_WIDTH, LARGEST_WIDTHS = 32_768, 300_000_000  # of one layer, and weights between all of them
LARGEST_PARAMETER = 10_000.0  # of the mean face and of scales; a face's own numbers are below 100


@dataclass(frozen=True)
class LoraSettings:
    """LoRA on the language model; the defaults are those of LLaVA-1.5's own LoRA recipe.

    rank: inner width of the two factors. alpha: their product is scaled by alpha / rank. dropout: share of
    their input that is left out while training.
    targets: names of the linear layers of the language model that get it.

    Raises ConfigError for a rank outside of 1 to 1024, a dropout outside of [0,1), no or strange targets.
    """

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    targets: tuple[str, ...] = LLAMA_LINEAR_LAYERS

    def __post_init__(self) -> None:
        if not (_is_whole(self.rank) and 1 <= self.rank <= LARGEST_RANK):
            raise ConfigError(f"lora.rank is {self.rank}; give a whole number from 1 to {LARGEST_RANK}")
        if not (_is_whole(self.alpha) and 1 <= self.alpha <= 1_000_000):
            raise ConfigError(f"lora.alpha is {self.alpha}; give a whole number from 1 to 1,000,000")
        if not (_is_number(self.dropout, 1.0) and 0 <= self.dropout < 1):
            raise ConfigError(f"lora.dropout is {self.dropout}; give a number from 0 to below 1")
        if not self.targets or not all(isinstance(name, str) and name for name in self.targets):
            raise ConfigError(f"lora.targets is {list(self.targets)}; name linear layers, such as q_proj")


@dataclass(frozen=True)
class FaceHeadSettings:
    """Hidden widths (None: one layer of the backbone's width), output scales, what it reads; see `FaceHead`.

    text_layer: the layer of the language model, from 1, whose states are the words that the head reads; None:
    it reads no text. The middle layers know words best, the last one what comes next.
    Raises ConfigError for widths or scales that are no numbers or too large.
    """

    widths: tuple[int, ...] | None = None
    scales: dict[str, tuple[float, ...]] = field(default_factory=dict)
    reads_image: bool = False
    text_layer: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.reads_image, bool):
            raise ConfigError(f"face_head.reads_image is {self.reads_image!r}; it is true or false")
        if self.text_layer is not None and not (_is_whole(self.text_layer) and self.text_layer >= 1):
            raise ConfigError(
                f"face_head.text_layer is {self.text_layer!r}; give the number of a layer, 1 or more, or null"
            )
        widths = self.widths or ()
        if not all(_is_whole(width) and 1 <= width <= LARGEST_WIDTH for width in widths):
            raise ConfigError(f"face_head.widths is {list(widths)}; give numbers from 1 to {LARGEST_WIDTH}")
        weights = sum(inputs * outputs for inputs, outputs in pairwise(widths))
        if weights > LARGEST_WIDTHS:
            raise ConfigError(f"face_head.widths asks for {weights} weights, {LARGEST_WIDTHS} are the most")
        for name, values in self.scales.items():
            if not all(_is_number(value, LARGEST_PARAMETER) for value in values):
                raise ConfigError(
                    f"face_head.scales.{name} is {list(values)}; give numbers up to {LARGEST_PARAMETER:g}"
                )


@dataclass(frozen=True)
class FaceGPTSpec:
    """What a checkpoint has to know to build the model again; `fingerprint` recognises the backbone."""

    backbone: str
    layout: ParameterLayout
    mean: tuple[float, ...]
    lora: LoraSettings | None
    head: FaceHeadSettings
    fingerprint: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ConfigError: whoever writes a spec by hand gets a sentence."""
        if not isinstance(self.backbone, str):  # empty for a model that was made in memory
            raise ConfigError(f"backbone is {self.backbone!r}; name a folder or the id of a model")
        if not all(_is_whole(size) and size >= 0 for size in self.layout.sizes.values()):
            raise ConfigError(f"layout is {self.layout}; its sizes are whole numbers")
        if len(self.mean) != self.layout.total:
            raise ConfigError(f"mean has {len(self.mean)} numbers, the layout {self.layout.total}")
        for name, values in (("mean", self.mean), ("fingerprint", self.fingerprint)):
            for number, value in enumerate(values):
                if not (_is_number(value, LARGEST_PARAMETER)):
                    raise ConfigError(
                        f"{name}[{number}] is {value!r}; it must be a number of at most {LARGEST_PARAMETER:g}"
                    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object, largest: float) -> bool:
    """False for NaN, too; no arithmetic, which integers of 400 digits would not survive."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest
