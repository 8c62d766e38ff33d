"""The face head starts near the mean and keeps float32."""

from __future__ import annotations

import pytest
import torch

from facegpt.errors import ConfigError
from facegpt.head.parameters import UNIT_AMBIENT, FaceParameters, ParameterLayout
from facegpt.model.face_head import GROUP_SCALES, FaceHead

LAYOUT = ParameterLayout(neck=True, eyes=True)


def head(hidden: int = 64, **options: object) -> FaceHead:
    torch.manual_seed(0)
    return FaceHead(hidden, LAYOUT, FaceParameters.mean(LAYOUT).to_vector()[0], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("hidden", [64, 1024])
def test_it_starts_near_the_mean_face_but_not_at_it(hidden: int, size: float) -> None:
    parameters = head(hidden).face_parameters(size * torch.randn(200, hidden))
    parameters = parameters.detach()
    offset = parameters.to_vector() - FaceParameters.mean(LAYOUT).to_vector()
    groups = FaceParameters.from_vector(offset, LAYOUT)
    for name in ("shape", "albedo", "expression", "pose", "lighting", "neck", "eyes"):
        spread = float(getattr(groups, name).std()) / GROUP_SCALES[name][0]
        assert 0.03 < spread < 0.3, name
    assert float((parameters.camera[:, 0] / 7.0).log().std()) < 0.05
    assert float(groups.camera[:, 1:].std()) < 0.01  # metres
    assert float((parameters.lighting[:, :3] - UNIT_AMBIENT).abs().max()) < 1.0


def test_the_camera_scale_is_positive_for_any_output() -> None:
    model = head()
    with torch.no_grad():
        list(model.parameters())[-2].mul_(1000)
    scale = model.face_parameters(torch.randn(500, 64)).camera[:, 0]
    assert (scale > 0).all() and scale.std() > 1.0


def test_gradients_reach_every_layer() -> None:
    model = head()
    model(torch.randn(4, 64)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_computes_in_float32_under_autocast_and_from_bfloat16_states() -> None:
    model, states = head(), torch.randn(3, 64).bfloat16()
    expected = model.mean + model.network(states.float()) * model.scales
    with torch.autocast("cpu", torch.bfloat16):
        actual = model(states)
    assert actual.dtype == torch.float32
    shape, albedo, expression = 100, 50, 50
    assert torch.equal(actual[:, : shape + albedo + expression], expected[:, : shape + albedo + expression])


def test_it_runs_with_weights_that_an_engine_has_cast() -> None:
    model = head()
    expected = model(torch.ones(2, 64))
    for parameter in model.parameters():  # as DeepSpeed's bf16 mode does: parameters, not buffers
        parameter.data = parameter.data.bfloat16()
    actual = model(torch.ones(2, 64))
    assert actual.dtype == torch.float32
    assert torch.allclose(actual, expected, atol=0.01)


def test_mean_and_scales_are_not_in_the_state() -> None:
    assert set(head().state_dict()) == {f"network.{i}.{k}" for i in (0, 1, 3) for k in ("weight", "bias")}


def test_widths_and_scales_can_be_chosen() -> None:
    model = head(widths=(8, 16), scales={"pose": (0.0,), "camera": (0.0, 0.0, 0.0)})
    assert [m.out_features for m in model.network if isinstance(m, torch.nn.Linear)] == [8, 16, LAYOUT.total]
    parameters = model.face_parameters(torch.randn(3, 64))
    assert torch.equal(parameters.pose, torch.zeros(3, 6))
    assert torch.equal(parameters.camera, torch.tensor([[7.0, 0.0, 0.0]]).expand(3, 3))


@pytest.mark.parametrize("scales", [{"poses": (1.0,)}, {"pose": (1.0, 2.0)}])
def test_scales_that_fit_no_group_are_refused(scales: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError, match="pose"):
        head(scales=scales)


def test_a_mean_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="245"):
        FaceHead(64, LAYOUT, torch.zeros(236))


def test_an_image_is_seen_only_by_a_head_that_reads_images() -> None:
    states, images = torch.randn(2, 3, 64).unbind()
    assert torch.equal(head()(states), head()(states, images))
    model = head(reads_image=True)
    assert not torch.allclose(model(states), model(states, images))
    assert torch.equal(model(states), model(states, torch.zeros_like(states)))
    assert torch.allclose(model(states, images), model(states, 100 * images + 5), atol=1e-4), (
        "its size is not"
    )


def test_a_head_that_reads_text_wants_words_and_says_another_face_for_other_words() -> None:
    model, states, told = head(reads_text=True), torch.randn(2, 64), torch.ones(2, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match="needs the states of the words"):
        model(states)
    words = torch.randn(2, 5, 64)
    assert (model(states, None, words, told) - model(states, None, -words, told)).abs().max() > 1e-3
    assert torch.equal(head()(states), head()(states, None, words, told)), "the other heads look at no words"
