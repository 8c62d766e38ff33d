"""FaceGPT: a vision-language model whose `<FACE>` tokens carry face parameters.

Shape legend: N conversations, T tokens, M images, K supervised tokens, F faces, H hidden size, V vocabulary.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, ProcessorMixin

from facegpt.errors import ConfigError, SampleError
from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.model import backbone as vlm
from facegpt.model.face_head import FaceHead
from facegpt.model.hub import HubMethods
from facegpt.model.spec import FaceGPTSpec, FaceHeadSettings, LoraSettings
from facegpt.model.tokens import add_face_token, face_positions, images_before
from facegpt.model.weights import untie_vocabulary
from facegpt.sample import FACE_TOKEN, Batch


@dataclass
class HiddenStates:
    """What the language model makes of prompts or conversations.

    states (N,T,H): after its last layer. words (N,T,H): after the layer that the face head reads text from,
    None where it reads none. images (M,H): the mean token of each image; one row of zeros without any.
    """

    states: Tensor
    words: Tensor | None
    images: Tensor


@dataclass
class FaceGPTOutput:
    """What a training step needs.

    logits (K,V) float32 at the positions that predict supervised tokens, labels (K,) those tokens, label_rows
    (K,) the conversation of each. face_parameters: in the order of the `<FACE>` tokens, face_rows (F,) the
    conversation of each; with num_faces == 0 one dummy row, the mean face without a gradient.
    anchor: a scalar zero; add it to the loss on every rank, so that every trainable parameter has a gradient
    whatever the batch holds. Ranks whose graphs differ make DeepSpeed abort or hang.
    """

    logits: Tensor
    labels: Tensor
    label_rows: Tensor
    face_parameters: FaceParameters
    face_rows: Tensor
    num_faces: int
    anchor: Tensor


class FaceGPT(HubMethods, nn.Module):
    """A backbone with LoRA, the `<FACE>` token and a face head. Make one with `build_facegpt`.

    It wraps the vision-language model and uses its public parts only. Sub-modules run in the same order for
    every batch (embedding, vision tower, language model, output layer, face head): ZeRO-3 gathers weights in
    the order of the first step.
    """

    def __init__(
        self,
        backbone: PreTrainedModel | PeftModel,
        face_head: FaceHead,
        processor: ProcessorMixin,
        face_token_id: int,
        spec: FaceGPTSpec,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.face_head = face_head
        self.processor = processor
        self.face_token_id = face_token_id
        self.spec = spec

    @property
    def vlm(self) -> PreTrainedModel:
        """The vision-language model with LoRA layers in place, without PEFT's wrapper."""
        backbone = self.backbone
        return backbone.get_base_model() if isinstance(backbone, PeftModel) else backbone  # type: ignore

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.face_head.mean.device

    def train(self, mode: bool = True) -> FaceGPT:
        """As usual, but the frozen vision tower stays in eval mode."""
        super().train(mode)
        vlm.vision_tower(self.vlm).eval()
        return self

    def checkpoint_activations(self) -> None:
        """Keep only the inputs of the language model's layers; the backward pass computes the rest again."""
        # Re-entrant checkpointing would need inputs with a gradient, and loses the autocast state.
        new_name = getattr(self.vlm, "activation_checkpointing_enable", None)  # the old one warns
        (new_name or self.vlm.gradient_checkpointing_enable)({"use_reentrant": False})

    def forward(self, batch: Batch) -> FaceGPTOutput:
        """One pass over a padded batch (either side), teacher forced.

        Raises SampleError when images or faces of the batch do not fit its tokens.
        """
        rows, columns = face_positions(batch.input_ids, self.face_token_id)
        if batch.faces is not None and len(batch.faces) != len(rows):
            raise SampleError(
                f"batch of {', '.join(batch.ids)}: {len(rows)} <FACE> tokens but {len(batch.faces)} targets"
            )
        hidden = self.hidden_states(batch.input_ids, batch.attention_mask, batch.pixel_values)

        # The output layer only sees what is needed: (N,T,V) logits of a 7B model would be its largest tensor.
        label_rows, label_columns = torch.nonzero(batch.label_mask[:, 1:], as_tuple=True)
        logits = self.vlm.get_output_embeddings()(hidden.states[label_rows, label_columns]).float()  # (K, V)
        labels = batch.input_ids[label_rows, label_columns + 1]

        num_faces = len(rows)
        if not num_faces:  # a row that nobody reads, at the end: whatever the padding, words come before it
            rows, columns = rows.new_zeros(1), columns.new_full((1,), batch.input_ids.shape[1] - 1)
        context = self.image_context(batch.input_ids, hidden.images, rows, columns)  # (F, H)
        words = None if hidden.words is None else hidden.words[rows]  # (F, T, H)
        told = self.told_words(batch.input_ids, batch.attention_mask, rows, columns)  # (F, T)
        vector = self.face_head(hidden.states[rows, columns], context, words, told)  # (F, parameters)
        rows = rows[:num_faces]
        anchor = 0.0 * (vector.sum() + logits[:, :1].sum())
        if not num_faces:
            vector = self.face_head.mean[None].clone()
        parameters = FaceParameters.from_vector(vector, self.face_head.layout)
        return FaceGPTOutput(logits, labels, label_rows, parameters, rows, num_faces, anchor)

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None,
        cache: Cache | None = None,
    ) -> HiddenStates:
        """Of prompts or conversations (N,T); `cache`, if given, is filled.

        Raises SampleError when `<image>` tokens and images do not match.
        """
        model = self.vlm
        images = 0 if pixel_values is None else len(pixel_values)
        placeholders = int((input_ids == model.config.image_token_id).sum())
        expected = images * vlm.image_token_count(self.processor)
        if placeholders != expected:
            raise SampleError(
                f"{images} images need {expected} <image> tokens, but the conversations have {placeholders}"
            )
        embeddings = model.get_input_embeddings()(input_ids)  # (N, T, H)
        if pixel_values is None:
            features = vlm.image_features(model, vlm.blank_image(model, input_ids.device))
            features = 0.0 * features
            embeddings = embeddings + features.mean().to(embeddings.dtype)
        else:
            features = vlm.image_features(model, pixel_values.to(model.dtype))
            is_image = (input_ids == model.config.image_token_id)[..., None]
            embeddings = embeddings.masked_scatter(is_image, features.to(embeddings.dtype))
        means = features.float().unflatten(0, (max(images, 1), -1)).mean(dim=1)  # (M, H)
        return HiddenStates(*self._language_states(embeddings, attention_mask, cache), means)

    def image_context(self, input_ids: Tensor, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What the face head sees of images (F,H): the mean token of the last one before each place.

        images (M,H) as `hidden_states` returns them; rows, columns (F,) of input_ids. Zeros where none is.
        """
        is_image = input_ids == self.vlm.config.image_token_id
        which = images_before(is_image, rows, columns, vlm.image_token_count(self.processor))
        return images[which.clamp(min=0)] * (which >= 0)[:, None]

    def told_words(self, input_ids: Tensor, attention_mask: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Which tokens (F,T) the face head reads: the text up to and with each place, without images."""
        is_text = attention_mask.bool() & (input_ids != self.vlm.config.image_token_id)
        return is_text[rows] & (torch.arange(is_text.shape[1], device=rows.device) <= columns[:, None])

    def next_states(
        self, tokens: Tensor, attention_mask: Tensor, cache: Cache
    ) -> tuple[Tensor, Tensor | None]:
        """States and words (N,t,H), as in `HiddenStates`, of further text tokens (N,t).

        attention_mask (N,T+t) covers the cache and them.
        """
        return self._language_states(self.vlm.get_input_embeddings()(tokens), attention_mask, cache)

    def _language_states(
        self, embeddings: Tensor, attention_mask: Tensor, cache: Cache | None
    ) -> tuple[Tensor, Tensor | None]:
        layer = self.spec.head.text_layer
        # Counted from the first real token, so that padding on the left changes nothing.
        position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -embeddings.shape[1] :]
        output = self.vlm.base_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=layer is not None,
        )
        return output.last_hidden_state, None if layer is None else output.hidden_states[layer]


def build_facegpt(
    backbone: PreTrainedModel,
    processor: ProcessorMixin,
    layout: ParameterLayout,
    mean: Tensor,
    lora: LoraSettings | None,
    head: FaceHeadSettings | None = None,
) -> FaceGPT:
    """Add `<FACE>`, LoRA and a face head to a loaded backbone (which is changed, and so is the tokenizer).

    mean (layout.total,): the parameter vector that the face head starts around, `head.mean_parameters()`.
    lora None leaves the whole backbone frozen, as in a merged checkpoint; the trainable weights are otherwise
    LoRA, the two vocabulary rows of `<FACE>` (embedding and output layer) and the face head, all float32.
    Random initial values come from torch's global generator.

    Raises ConfigError for LoRA targets, face-head scales or a text layer that fit nothing, CheckpointError
    for a tokenizer that cannot hold `<FACE>`.
    """
    head = head or FaceHeadSettings()
    vlm.freeze(backbone)
    fingerprint = backbone_fingerprint(backbone)
    face_token_id = _place_face_token(backbone, processor)
    hidden_size = vlm.vocabulary_tables(backbone)[0].shape[1]
    layers = backbone.config.get_text_config().num_hidden_layers
    if head.text_layer is not None and head.text_layer > layers:
        raise ConfigError(
            f"face_head.text_layer is {head.text_layer}, the language model has {layers} layers"
        )
    head_options = (head.widths, head.scales, head.reads_image, head.text_layer is not None)
    face_head = FaceHead(hidden_size, layout, mean, *head_options)
    face_head.to(backbone.device)
    if lora is not None:
        untie_vocabulary(backbone)
    wrapped = backbone if lora is None else _add_lora(backbone, lora, face_token_id)
    spec = FaceGPTSpec(
        backbone=str(backbone.name_or_path),
        layout=layout,
        mean=tuple(mean.tolist()),
        lora=lora,
        head=head,
        fingerprint=fingerprint,
    )
    return FaceGPT(wrapped, face_head, processor, face_token_id, spec).eval()


def backbone_fingerprint(backbone: PreTrainedModel) -> tuple[float, ...]:
    """Some weights by which a checkpoint recognises its backbone; bfloat16 changes them by less than 1 %.

    Four of each vocabulary table, then four of every matrix of the projector and of a face tower's reader:
    the language model may be the same while what it is shown is not.
    """
    tables = vlm.vocabulary_tables(backbone)
    values = [table[16:272:64, 0] for table in tables]
    for name, weight in backbone.named_parameters():
        if weight.ndim == 2 and ("projector." in name or ".reader." in name):
            values.append(weight.flatten()[:: max(1, weight.numel() // 4)][:4])
    return tuple(float(value) for few in values for value in few.detach().float())


def _place_face_token(backbone: PreTrainedModel, processor: ProcessorMixin) -> int:
    """Give `<FACE>` a row, which starts as the mean of all words, neither likely nor impossible.

    Only a vocabulary without a spare row grows; every row that the backbone brought keeps its values.
    """
    rows = rows_before = vlm.vocabulary_tables(backbone)[0].shape[0]
    tokenizer = processor.tokenizer
    known = len(tokenizer)
    if FACE_TOKEN in tokenizer.get_vocab():  # a merged model: its row is trained already
        return add_face_token(tokenizer, rows)
    if known >= rows:  # no spare row: grow to a multiple of 64, never shrink
        rows = (known // 64 + 1) * 64
        backbone.resize_token_embeddings(rows, mean_resizing=False)
        vlm.freeze(backbone)
    token_id = add_face_token(tokenizer, rows)
    with torch.no_grad():
        for table in vlm.vocabulary_tables(backbone):
            mean = table[:known].float().mean(dim=0).to(table.dtype)
            table[token_id] = mean
            table[rows_before:] = mean  # what the growth made; spare rows keep the backbone's values
    return token_id


def _add_lora(backbone: PreTrainedModel, lora: LoraSettings, face_token_id: int) -> PeftModel:
    names = {id(module): name for name, module in backbone.named_modules()}
    tables = (backbone.get_input_embeddings(), backbone.get_output_embeddings())
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=vlm.lora_targets(backbone, tuple(lora.targets)),
        trainable_token_indices={names[id(table)]: [face_token_id] for table in tables},
    )
    with warnings.catch_warnings():  # PEFT asks for a property that transformers has renamed
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(backbone, config)  # keeps its own weights in float32 under a bfloat16 base
