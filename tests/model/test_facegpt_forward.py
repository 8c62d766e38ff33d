"""The teacher-forced pass: what trains, what comes out, and that every batch gives every gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_facegpt import LAYOUT, LORA, make_batch, pixels, question, small_facegpt
from torch import nn

from facegpt.errors import ConfigError, SampleError
from facegpt.head.parameters import FaceParameters
from facegpt.model.backbone import vision_tower
from facegpt.model.facegpt import FaceGPT
from facegpt.model.spec import FaceHeadSettings
from facegpt.sample import Batch, FaceTargets


@pytest.fixture(scope="module", params=[False, True], ids=["state", "state, image and text"])
def model(request: pytest.FixtureRequest) -> FaceGPT:
    return small_facegpt(
        head=FaceHeadSettings(reads_image=request.param, text_layer=1 if request.param else None)
    )


def answer(model: FaceGPT, text: str) -> list[int]:
    return model.processor.tokenizer.encode(f" {text}</s>", add_special_tokens=False)


def mixed_batch(model: FaceGPT, side: str = "right") -> Batch:
    """An image with a face, text with two faces, text without any."""
    rows, answers = [], []
    for asked, said, image in (
        ("Who is it?", "Here: <FACE>.", True),
        ("A man, then a woman, please.", "He <FACE> and she <FACE>.", False),
        ("Hello", "Hi.", False),
    ):
        reply = answer(model, said)
        rows.append(question(model, asked, image) + reply)
        answers.append(len(reply))
    return make_batch(model, rows, answers, pixels(1), side=side)


def text_batch(model: FaceGPT) -> Batch:
    reply = answer(model, "Hi.")
    return make_batch(model, [question(model, "Hello") + reply], [len(reply)])


def test_lora_the_two_token_rows_and_the_face_head_train_and_nothing_else(model: FaceGPT) -> None:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    lora = {name for name in trained if ".lora_A." in name or ".lora_B." in name}
    rows = {name for name in trained if "trainable_tokens_delta" in name}
    head = {name for name in trained if name.startswith("face_head.")}
    assert trained.keys() == lora | rows | head
    assert len(lora) == 2 * 7 * 2  # A and B, seven linear layers, two transformer layers
    assert sorted(name.split(".token_adapter")[0].split(".")[-1] for name in rows) == [
        "embed_tokens",
        "lm_head",
    ]
    assert all(trained[name].shape == (1, 32) for name in rows)
    assert not any("vision_tower" in name or "projector" in name for name in trained)
    assert not any("lora" in name for name, _ in vision_tower(model.vlm).named_parameters())
    assert {p.dtype for p in trained.values()} == {torch.float32}


def test_logits_are_those_of_the_backbone_at_the_supervised_positions(model: FaceGPT) -> None:
    batch = mixed_batch(model)
    output = model(batch)
    with torch.no_grad():
        full = model.vlm(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, pixel_values=batch.pixel_values
        ).logits
    expected, labels, rows = [], [], []
    for row in range(3):
        for column in range(batch.input_ids.shape[1]):
            if batch.label_mask[row, column]:
                expected.append(full[row, column - 1])
                labels.append(int(batch.input_ids[row, column]))
                rows.append(row)
    assert torch.allclose(output.logits, torch.stack(expected), atol=1e-4)
    assert output.labels.tolist() == labels
    assert output.label_rows.tolist() == rows


def test_faces_come_in_the_order_of_their_tokens(model: FaceGPT) -> None:
    output = model(mixed_batch(model))
    assert output.num_faces == 3 and output.face_rows.tolist() == [0, 1, 1]
    vector = output.face_parameters.to_vector()
    assert vector.shape == (3, LAYOUT.total)
    assert torch.pdist(vector).min() > 1e-3, "each token has a face of its own"


def test_padding_side_and_company_change_nothing(model: FaceGPT) -> None:
    right, left = model(mixed_batch(model)), model(mixed_batch(model, "left"))
    assert torch.allclose(right.logits, left.logits, atol=1e-4)
    assert torch.allclose(right.face_parameters.to_vector(), left.face_parameters.to_vector(), atol=1e-5)
    reply = answer(model, "Hi.")
    alone = model(make_batch(model, [question(model, "Hello") + reply], [len(reply)]))
    assert torch.allclose(alone.logits, right.logits[right.label_rows == 2], atol=1e-4)


def test_the_image_matters(model: FaceGPT) -> None:
    batch = mixed_batch(model)
    other = replace(batch, pixel_values=pixels(1, seed=1))
    first, second = (model(b).face_parameters.to_vector() for b in (batch, other))
    assert (first[0] - second[0]).abs().max() > 1e-3
    assert torch.allclose(first[1:], second[1:], atol=1e-5)


def test_the_words_of_a_face_leave_out_images_padding_and_what_comes_later() -> None:
    model = small_facegpt(head=FaceHeadSettings(text_layer=2))
    word, image, pad = 10, int(model.vlm.config.image_token_id), int(model.processor.tokenizer.pad_token_id)
    ids = torch.tensor([[pad, word, image, word, word], [word, word, word, image, pad]])
    rows, columns = torch.tensor([0, 0, 1]), torch.tensor([4, 3, 3])
    told = model.told_words(ids, (ids != pad).long(), rows, columns)
    assert told.long().tolist() == [[0, 1, 0, 1, 1], [0, 1, 0, 1, 0], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize("layer", [1, 2])
def test_the_words_are_the_states_after_the_named_layer(layer: int) -> None:
    model = small_facegpt(head=FaceHeadSettings(text_layer=layer))
    seen = {}
    layers = model.vlm.get_decoder().layers
    handle = layers[layer - 1].register_forward_hook(lambda *call: seen.update(output=call[2]))
    batch = text_batch(model)
    words = model.hidden_states(batch.input_ids, batch.attention_mask, None).words
    handle.remove()
    output = seen["output"][0] if isinstance(seen["output"], tuple) else seen["output"]
    expected = output if layer < len(layers) else model.vlm.get_decoder().norm(output)
    torch.testing.assert_close(words, expected)


def test_a_layer_that_is_not_there_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="text_layer is 3, the language model has 2 layers"):
        small_facegpt(head=FaceHeadSettings(text_layer=3))


def test_a_batch_without_a_face_gives_the_mean_face_as_dummy(model: FaceGPT) -> None:
    output = model(text_batch(model))
    assert output.num_faces == 0 and len(output.face_rows) == 0
    assert torch.equal(output.face_parameters.to_vector(), FaceParameters.mean(LAYOUT).to_vector())
    assert output.anchor == 0.0


@pytest.mark.parametrize("kind", ["mixed", "text", "nothing supervised"])
def test_every_trainable_parameter_has_a_gradient_whatever_the_batch_holds(model: FaceGPT, kind: str) -> None:
    batch = mixed_batch(model) if kind == "mixed" else text_batch(model)
    if kind == "nothing supervised":
        batch = replace(batch, label_mask=torch.zeros_like(batch.label_mask))
    model.zero_grad(set_to_none=True)
    output = model(batch)
    loss = output.anchor
    if kind != "nothing supervised":
        loss = loss + nn.functional.cross_entropy(output.logits, output.labels)
    if output.num_faces:
        loss = loss + output.face_parameters.to_vector().square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    head = sum(float(p.grad.abs().sum()) for p in model.face_head.parameters() if p.grad is not None)
    assert (head > 0) == (kind == "mixed")


def test_modules_run_in_the_same_order_for_every_batch(model: FaceGPT) -> None:
    orders = []
    for batch in (mixed_batch(model), text_batch(model)):
        order: list[str] = []
        handles = [
            module.register_forward_hook(lambda *_, name=name, order=order: order.append(name))
            for name, module in model.named_modules()
            if not isinstance(module, nn.Dropout)
        ]
        model(batch)
        for handle in handles:
            handle.remove()
        orders.append(order)
    assert orders[0] == orders[1] and any("vision_tower" in name for name in orders[0])


def test_the_output_layer_sees_only_supervised_positions(model: FaceGPT) -> None:
    seen: list[torch.Size] = []
    layer = model.vlm.get_output_embeddings()
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    batch = mixed_batch(model)
    model(batch)
    handle.remove()
    assert seen == [(int(batch.label_mask.sum()), 32)]


def test_checkpointed_activations_give_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = small_facegpt().train()
        if checkpointing:
            model.checkpoint_activations()
        output = model(mixed_batch(model))
        (output.logits.square().mean() + output.face_parameters.to_vector().sum()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][n], gradients[1][n], atol=1e-5) for n in gradients[0])


def test_the_vision_tower_stays_in_eval_mode() -> None:
    model = small_facegpt().train()
    assert model.vlm.get_decoder().training and model.face_head.training
    assert not any(m.training for m in vision_tower(model.vlm).modules())


def test_a_bfloat16_base_keeps_float32_adapters_and_trains() -> None:
    model = small_facegpt()
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    expected = small_facegpt()(mixed_batch(model))
    output = model(mixed_batch(model))
    assert output.logits.dtype == output.face_parameters.pose.dtype == torch.float32
    assert (output.face_parameters.to_vector() - expected.face_parameters.to_vector()).abs().max() < 0.1
    (output.logits.sum() + output.face_parameters.to_vector().sum()).backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


def test_a_step_moves_the_token_rows() -> None:
    model = small_facegpt(lora=LORA, noise=False)
    rows = [p for n, p in model.named_parameters() if "trainable_tokens_delta" in n]
    before = [row.detach().clone() for row in rows]
    output = model(mixed_batch(model))
    nn.functional.cross_entropy(output.logits, output.labels).backward()
    torch.optim.SGD(rows, lr=1.0).step()
    assert all((row - old).abs().max() > 1e-6 for row, old in zip(rows, before, strict=True))


def test_faces_without_targets_are_refused(model: FaceGPT) -> None:
    target = FaceTargets(torch.zeros(1, 3, 8, 8), torch.zeros(1, 68, 2), torch.zeros(1, 8, 8))
    with pytest.raises(SampleError, match=r"sample-1.*3 <FACE> tokens but 1"):
        model(replace(mixed_batch(model), faces=target))


@pytest.mark.parametrize("images", [0, 2])
def test_images_without_placeholders_are_refused(model: FaceGPT, images: int) -> None:
    values = pixels(images) if images else None
    with pytest.raises(SampleError, match=f"{images} images need {4 * images} <image> tokens"):
        model(replace(mixed_batch(model), pixel_values=values))
