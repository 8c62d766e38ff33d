"""A small LLaVA of the same classes, tokens and chat template as llava-1.5-7b-hf, built in process.

It is a stand-in: everything that runs on LLaVA-1.5 runs on it with nothing downloaded. The recipe that gives
it weights worth having is `scripts/pretrain_tiny_llava.py`; tests use `TINY_RANDOM`, which is smaller still.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from facegpt.model.chat_format import VICUNA_TEMPLATE

SPARE_ROWS = 30  # at least so many unused vocabulary rows, as llava-1.5-7b-hf has 62 after <pad>


@dataclass(frozen=True)
class TinySize:
    """Sizes of the stand-in; by default those of the shipped one: 3.2 million parameters, 6.3 MB in bfloat16.

    vocab_size counts rows of the embedding, spare ones included. The CLS token is dropped and the last vision
    layer feeds the projector, so no layer of the tower is computed or trained in vain.
    """

    image: int = 112
    patch: int = 16
    vision_hidden: int = 192
    vision_layers: int = 4
    vision_heads: int = 4
    vision_mlp: int = 512
    hidden: int = 160
    layers: int = 4
    heads: int = 5
    mlp: int = 400
    vocab_size: int = 1200
    max_positions: int = 1024

    @property
    def image_tokens(self) -> int:
        """How many tokens the language model gets for an image."""
        return (self.image // self.patch) ** 2


TINY_RANDOM = TinySize(
    image=32,
    patch=16,
    vision_hidden=16,
    vision_layers=2,
    vision_heads=2,
    vision_mlp=32,
    hidden=32,
    layers=2,
    heads=2,
    mlp=64,
    vocab_size=448,
    max_positions=512,
)


def build_tiny_llava(
    texts: Iterable[str], size: TinySize | None = None, seed: int = 0
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """An untrained tiny LLaVA and its processor, deterministic in (texts, size, seed).

    texts: what the BPE vocabulary is trained on; characters outside of it fall back to bytes, as in Llama.
    Returns a float32 model on the CPU in eval mode and a processor; both are read back by
    `AutoModelForImageTextToText` and `AutoProcessor` after `save_tiny_llava`.

    Raises ValueError when the vocabulary has no room for special tokens, bytes and spare rows.
    """
    size = size or TinySize()
    processor = build_processor(build_tokenizer(texts, size.vocab_size), size)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.vision_hidden,
            intermediate_size=size.vision_mlp,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=size.vision_heads,
            image_size=size.image,
            patch_size=size.patch,
            projection_dim=size.vision_hidden,
        ),
        text_config=LlamaConfig(
            vocab_size=size.vocab_size,
            hidden_size=size.hidden,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=size.max_positions,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=size.image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).eval()
    # The tower's pooled output is not what LLaVA reads, so its norm would be a parameter without a gradient.
    model.model.vision_tower.post_layernorm.requires_grad_(False)
    generation = model.generation_config
    generation.bos_token_id, generation.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    generation.pad_token_id = tokenizer.pad_token_id
    return model, processor


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> LlamaTokenizer:
    """A Llama tokenizer trained on `texts`: <unk>, <s>, </s>, 256 bytes, BPE pieces, then <image> and <pad>.

    The tokenizer has at most vocab_size - SPARE_ROWS tokens, so that tokens can be added without a resize.
    """
    pieces = vocab_size - SPARE_ROWS - 2  # <image> and <pad> follow the pieces
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    specials = ["<unk>", "<s>", "</s>", *byte_tokens]
    least = len(specials) + 120
    if pieces < least:
        raise ValueError(
            f"vocab_size is {vocab_size}, a tiny tokenizer needs at least {least + SPARE_ROWS + 2} rows"
        )
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    # Words, digits and punctuation are cut before training so that merges never cross them; the finished
    # tokenizer need not cut (Llama's does not), because no merge reaches over such a border.
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "removed"),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=specials,
        initial_alphabet=[chr(code) for code in range(33, 127)],
        limit_alphabet=120,
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    bpe = json.loads(trained.to_str())["model"]
    tokenizer = LlamaTokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(merge) for merge in bpe["merges"]],
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        add_bos_token=True,
        add_eos_token=False,
        padding_side="left",
    )
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def build_processor(tokenizer: LlamaTokenizer, size: TinySize) -> LlavaProcessor:
    """CLIP's image processor (PIL, no torchvision) and the tokenizer, joined as in llava-1.5-7b-hf."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": size.image}, crop_size={"height": size.image, "width": size.image}
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=size.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA_TEMPLATE,
    )


def save_tiny_llava(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, directory: Path | str
) -> None:
    """Write model (weights rounded to bfloat16) and processor in the usual Hugging Face layout.

    The model in memory stays as it is. `model.to(torch.bfloat16)` would not do: it also rounds the rotary
    frequencies, which are a buffer, and then gives other logits than the saved files.
    """
    rounded = {name: tensor.detach().to(torch.bfloat16).cpu() for name, tensor in model.state_dict().items()}
    model.save_pretrained(directory, state_dict=rounded)
    processor.save_pretrained(directory)
