"""Two things about a backbone's weights: which of them may be rounded, and what ties its vocabulary."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def rounded_weights(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict in `dtype`, but for what the model says must stay in float32, as it is to be stored.

    `model.to(dtype)` would not do: it rounds those too, and the rotary frequencies, which are a buffer. The
    output layer of a tied vocabulary is left out.
    """
    precise = set(model._keep_in_fp32_modules_strict or ())  # transformers' name for it, of all sub-models
    state = {
        name: tensor.detach() if precise & set(name.split(".")) else tensor.detach().to(dtype)
        for name, tensor in model.state_dict().items()
    }
    if is_tied(model):
        del state["lm_head.weight"]
    return state


def vocabulary(model: PreTrainedModel) -> Tensor:
    """The embedding table (V,H)."""
    return cast(Tensor, model.get_input_embeddings().weight)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether embedding and output layer are one parameter."""
    return vocabulary(model) is cast(Tensor, model.get_output_embeddings().weight)


def untie_vocabulary(model: PreTrainedModel) -> None:
    """Make embedding and output layer two parameters; one table in memory until one of them changes.

    Tied, the one row of `<FACE>` would have to be both what the state before it points at and what the model
    reads after it; PEFT trains a row for each only where the configuration calls them untied.
    """
    if not is_tied(model):
        return
    model.get_output_embeddings().weight = nn.Parameter(vocabulary(model).data, requires_grad=False)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}  # what transformers goes by when it saves and resizes
