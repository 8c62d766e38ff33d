"""The small LLaVA: SmolLM2 as the language half, the face tower as the eyes, assembled on this machine.

Both halves are fetched (`facegpt.parts`); what training adds to them is small and ships with the package, in
`assets/small_llava`. Each of its files may be missing:

    tower.safetensors      `center`, `spread`, `gain` and `reader.*` of the face tower
    projector.safetensors  `linear_1.*` and `linear_2.*`; at random, from a seed, where there are none
    adapter.safetensors    LoRA of the language model, added in: for each of its linear layers, named as in
                           the whole model, `NAME.lora_A` (rank, in) and `NAME.lora_B` (out, rank), whose
                           product is taken times the file's metadata `scale`

The result is a LLaVA folder in Hugging Face layout, made once and kept in the cache.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from facegpt.errors import CheckpointError, MissingPartError
from facegpt.files import atomic_directory, sha256, take_lock
from facegpt.model.chat_format import CHATML_TEMPLATE
from facegpt.model.face_tower import FaceTowerConfig
from facegpt.model.weights import rounded_weights, vocabulary
from facegpt.parts import PARTS, SMALL, home, part_path
from facegpt.perception.graph_network import cut, last_value
from facegpt.perception.tflite_network import read_network
from facegpt.sample import IMAGE_TOKEN

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "small_llava"
FORMAT = 1  # to be raised when the same parts are put together in another way
SEED = 0  # of a projector without trained weights
PAD_TOKEN = "<pad>"
LANDMARKS = "face_landmarks_detector.tflite"  # the member of face_landmarker.task
MAP = (128, 8, 8)  # of the landmark network's values the last of this shape is what the tower looks at


def small_llava_folder() -> Path:
    """The assembled small LLaVA in the cache; it is assembled first if need be, which takes a minute.

    Raises MissingPartError when its parts are not in the cache.
    """
    folder = home() / f"small_llava-{recipe_hash()}"
    if folder.is_dir():
        return folder
    try:
        for part in SMALL:
            part_path(part)
    except MissingPartError as error:
        raise MissingPartError(f"the small model lacks a part ({error}); run `facegpt fetch small`") from None
    with (home() / ".small_llava.lock").open("a") as lock:
        take_lock(lock)
        if not folder.is_dir():
            print("assembling the small model, once; about a minute ...", file=sys.stderr, flush=True)
            assemble_small_llava(folder)
    return folder


def recipe_hash() -> str:
    """Twelve digits that change with every part and every shipped weight."""
    hashes = [str(FORMAT), *(PARTS[part].sha256 for part in SMALL)]
    hashes += [f"{file.name}={sha256(file)}" for file in sorted(ASSETS.glob("*.safetensors"))]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:12]


def assemble_small_llava(destination: str | Path, assets: str | Path = ASSETS) -> None:
    """Write the small LLaVA as a folder in Hugging Face layout; a folder of that name is replaced.

    Raises MissingPartError for parts that are not in the cache, CheckpointError for shipped weights that do
    not fit or without the package `gguf`.
    """
    landmarker, language = part_path("face_landmarker"), part_path("smollm2-135m")
    model, processor = join_halves(
        read_language(language), read_tokenizer(language), *read_trunk(landmarker), Path(assets)
    )
    with atomic_directory(destination) as temporary:
        model.save_pretrained(temporary, state_dict=rounded_weights(model, torch.bfloat16))
        processor.save_pretrained(temporary)


def read_trunk(landmarker: Path) -> tuple[FaceTowerConfig, dict[str, Tensor]]:
    """The landmark network up to its 8x8 map: configuration of a tower around it, and its weights."""
    with zipfile.ZipFile(landmarker) as archive:
        graph, weights = read_network(archive.read(LANDMARKS), LANDMARKS)
    trunk = cut(graph, last_value(graph, MAP))
    config = FaceTowerConfig(
        image_size=trunk.shape[1],
        patch_size=trunk.shape[1] // MAP[1],
        channels=MAP[0],
        trunk=trunk.to_dict(),
    )
    return config, {name: weights[name] for name in trunk.weights}


def read_language(gguf: Path) -> LlamaForCausalLM:
    """The language model of a GGUF file, dequantized. CheckpointError without the package `gguf`."""
    try:
        return LlamaForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
    except ImportError:
        raise CheckpointError("reading SmolLM2 needs the package gguf; `pip install gguf`") from None


def read_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file of SmolLM2 with `<image>` and `<pad>` added."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # GGUF only names the way of cutting ("smollm"); the reader takes GPT-2's, which keeps digits together.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})  # its own is the end of a turn, which is learnt
    tokenizer.padding_side = "left"
    return tokenizer


def join_halves(
    language: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    tower: FaceTowerConfig,
    trunk: dict[str, Tensor],
    assets: Path,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA in float32 of a language model, a tower and the shipped weights, and its processor.

    The tokenizer holds `<image>` and `<pad>` already. The vocabulary grows to the next multiple of 64 that
    leaves a row for `<FACE>`; new rows are the mean of the old ones.
    """
    shipped = {name: _read_shipped(assets / f"{name}.safetensors") for name in ("tower", "projector")}
    if "reader.facts.weight" in shipped["tower"]:
        tower.reader_outputs, tower.reader_hidden = shipped["tower"]["reader.facts.weight"].shape
        tower.reader_width = len(shipped["tower"]["reader.token.weight"])
    model = _empty_llava(language, tokenizer, tower)
    words, table = vocabulary(language), vocabulary(model)
    with torch.no_grad():
        table[: len(words)] = words
        table[len(words) :] = words.mean(dim=0)
    layers = language.model.state_dict()
    del layers["embed_tokens.weight"]
    _fill(model.model.language_model, layers, "the language model")
    _fill(model.model.vision_tower.trunk, trunk, "the trunk")
    _fill(model.model.vision_tower, shipped["tower"], "tower.safetensors")
    if shipped["projector"]:
        _fill(model.model.multi_modal_projector, shipped["projector"], "projector.safetensors")
    else:
        start_projector(model)
    add_adapter(model, assets / "adapter.safetensors")
    return model, _processor(tokenizer, tower)


def _empty_llava(
    language: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, tower: FaceTowerConfig
) -> LlavaForConditionalGeneration:
    """The model without weights worth anything, tied as the language model is."""
    text = language.config.to_dict()
    text.pop("_name_or_path", None)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    rows = (len(tokenizer) // 64 + 1) * 64
    config = LlavaConfig(
        vision_config=tower,
        text_config=type(language.config)(**{**text, **ids, "vocab_size": rows}),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),  # type: ignore[arg-type]
        image_seq_length=tower.grid**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(**ids)
    return model


def start_projector(model: LlavaForConditionalGeneration) -> None:
    """Random weights, from SEED, that make image tokens of about the size of embedded words."""
    generator = torch.Generator().manual_seed(SEED)
    projector = model.model.multi_modal_projector
    words = vocabulary(model)
    with torch.no_grad():
        for layer, size in ((projector.linear_1, 1.0), (projector.linear_2, 1.5 * float(words.std()))):
            layer.weight.normal_(std=size / layer.in_features**0.5, generator=generator)
            layer.bias.zero_()


def add_adapter(model: LlavaForConditionalGeneration, path: Path) -> None:
    """Add a shipped LoRA to the weights in place, in float32; nothing where there is no file.

    Raises CheckpointError when it is damaged or names other layers or shapes.
    """
    pairs = _read_shipped(path)
    if not pairs:
        return
    try:
        with safe_open(path, "pt") as file:
            scale = float((file.metadata() or {})["scale"])
        with torch.no_grad():
            for name in sorted(name.removesuffix(".lora_A") for name in pairs if name.endswith(".lora_A")):
                update = pairs[f"{name}.lora_B"].float() @ pairs[f"{name}.lora_A"].float()
                model.get_parameter(f"{name}.weight").add_(scale * update)
    except (KeyError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not fit the small model: {error}") from None


def _read_shipped(path: Path) -> dict[str, Tensor]:
    return load_file(path) if path.is_file() else {}


def _fill(module: torch.nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Load some of a module's weights; a name or a shape that it does not have is a CheckpointError."""
    state = module.state_dict()
    for name, weight in weights.items():
        if name not in state or state[name].shape != weight.shape:
            raise CheckpointError(f"{what} has a weight {name} {tuple(weight.shape)} that the model has not")
        state[name].copy_(weight)


def _processor(tokenizer: PreTrainedTokenizerBase, tower: FaceTowerConfig) -> LlavaProcessor:
    """Pictures in [0,1] at the tower's size, not normalized: the tower does that."""
    side = tower.image_size
    images = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_normalize=False
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=tower.patch_size,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHATML_TEMPLATE,
    )
