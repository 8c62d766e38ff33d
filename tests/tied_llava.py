"""The small LLaVA's classes at a size for tests: a tied Llama with ChatML behind a face tower of 4 tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from chat_formats import GPT2_WORDS, byte_level
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration, LlavaProcessor

from facegpt.model.face_tower import FaceTowerConfig
from facegpt.model.small_llava import PAD_TOKEN, join_halves
from facegpt.model.weights import rounded_weights
from facegpt.perception.graph_network import Graph, Step
from facegpt.sample import IMAGE_TOKEN

CHANNELS, SIDE = 6, 64


def tied_language(rows: int, seed: int = 0) -> LlamaForCausalLM:
    """An untrained language model of a tied vocabulary, with states that depend on the text."""
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.normal_(std=1.5 / parameter.shape[1] ** 0.5)
    return model


def small_trunk(seed: int = 0) -> tuple[FaceTowerConfig, dict[str, Tensor]]:
    """A tower of two convolutions, 64 px to a map (6,2,2), and their weights."""
    plain = {"padding": [0, 0, 0, 0], "dilation": [1, 1], "groups": 1}
    weights = {"w1_kernel": [5, 3, 8, 8], "w2_kernel": [CHANNELS, 5, 4, 4], "w3_vector": [CHANNELS]}
    steps = [
        Step("conv", ["x", "w1_kernel"], "a", {**plain, "stride": [8, 8]}),
        Step("relu", ["a"], "b"),
        Step("conv", ["b", "w2_kernel", "w3_vector"], "map", {**plain, "stride": [4, 4]}),
    ]
    graph = Graph("x", [3, SIDE, SIDE], steps, ["map"], weights)
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in weights.items()}
    tower = FaceTowerConfig(
        image_size=SIDE, patch_size=32, channels=CHANNELS, thumbnail=2, trunk=graph.to_dict()
    )
    return tower, tensors


def tied_llava(
    assets: Path = Path("no shipped weights"), seed: int = 0
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """What `assemble_small_llava` makes of the parts, from parts of our own."""
    tokenizer = byte_level(GPT2_WORDS, "<|im_start|>", "<|im_end|>", ["<|endoftext|>"])
    language = tied_language(len(tokenizer), seed)
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return join_halves(language, tokenizer, *small_trunk(seed), assets)


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write both as the assembly does."""
    model.save_pretrained(folder, state_dict=rounded_weights(model, torch.bfloat16))
    processor.save_pretrained(folder)
