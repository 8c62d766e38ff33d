"""Recognisers: frozen, loadable from every format, and equal to the networks the files came from."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facegpt.errors import CheckpointError
from facegpt.perception.iresnet import IResNet
from facegpt.perception.onnx_file import read_onnx
from facegpt.perception.recognizer import TINY_WEIGHTS, Recognizer, load_recognizer
from facegpt.perception.tiny_network import TinyNetwork


def faces(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def lively(network: nn.Module) -> nn.Module:
    """Random weights and statistics everywhere, so that a mistaken normalisation shows."""
    random = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=random)
            for tensor in (module.bias, module.running_mean):
                tensor.data = 0.3 * torch.randn(tensor.shape, generator=random)
        if isinstance(module, nn.PReLU):
            module.weight.data = 0.5 * torch.rand(module.weight.shape, generator=random)
    return network.eval()


@pytest.fixture(scope="module")
def small_iresnet() -> IResNet:
    torch.manual_seed(0)
    return lively(IResNet((2, 1, 1, 1), (4, 4, 8, 8), 8))


def test_features_have_unit_length_and_see_the_image_between_minus_one_and_one():
    class Spy(nn.Module):
        def forward(self, x):
            self.seen = x
            return x.flatten(1)[:, :5]

    recognizer = Recognizer(Spy())
    image = faces()
    assert torch.allclose(recognizer(image).norm(dim=1), torch.ones(2))
    assert torch.equal(recognizer.network.seen, 2 * image - 1)


def test_recognizer_is_frozen_whatever_its_owner_does(small_iresnet):
    owner = nn.ModuleList([Recognizer(copy.deepcopy(small_iresnet))])
    before = copy.deepcopy(owner.state_dict())
    owner.train()
    image = faces().requires_grad_()
    owner[0](image)[:, 0].sum().backward()
    assert not any(module.training for module in owner[0].modules())
    assert all(p.grad is None and not p.requires_grad for p in owner.parameters())
    assert image.grad.abs().sum() > 0
    assert all(torch.equal(v, before[k]) for k, v in owner.state_dict().items())


def test_folding_the_normalizations_changes_nothing():
    torch.manual_seed(0)
    network = lively(TinyNetwork())
    expected = network(faces())
    folded = copy.deepcopy(network).fold()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded(faces()), expected, atol=1e-4 * expected.abs().max().item())
    assert {k: v.shape for k, v in folded.state_dict().items()} == {
        k: v.shape for k, v in TinyNetwork(folded=True).state_dict().items()
    }


def test_tiny_weights_round_trip_in_half_precision(tmp_path):
    torch.manual_seed(0)
    network = lively(TinyNetwork()).fold()
    path = tmp_path / "tiny.safetensors"
    save_file({k: v.half() for k, v in network.state_dict().items()}, path)
    assert path.stat().st_size <= 1_000_000
    recognizer = load_recognizer(path)
    assert all(p.dtype == torch.float32 for p in recognizer.parameters())
    assert torch.allclose(recognizer(faces()), Recognizer(network)(faces()), atol=5e-3)


def test_iresnet_50_has_insightfaces_names_and_size():
    with torch.device("meta"):
        state = IResNet().state_dict()
    for name in (
        "conv1.weight",
        "bn1.running_var",
        "prelu.weight",
        "layer1.0.bn1.weight",
        "layer3.13.conv2.weight",
    ):
        assert name in state
    for name in ("layer2.0.downsample.0.weight", "layer4.0.downsample.1.bias", "bn2.weight", "fc.bias"):
        assert name in state
    assert state["layer1.0.prelu.weight"].shape == (64,) and state["fc.weight"].shape == (512, 25088)
    assert "layer1.1.downsample.0.weight" not in state
    learned = sum(v.numel() for k, v in state.items() if "running" not in k and "num_batches" not in k)
    assert round(learned / 1e6, 2) == 43.59  # insightface's table for r50


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_iresnet_state_dicts_of_any_size_are_read(small_iresnet, tmp_path, suffix):
    path = tmp_path / f"backbone{suffix}"
    state = small_iresnet.state_dict()
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    assert torch.allclose(load_recognizer(path)(faces()), Recognizer(small_iresnet)(faces()), atol=1e-6)


@pytest.fixture
def onnx_path(small_iresnet, tmp_path, monkeypatch):
    """The small IResNet as written by torch's own exporter, which needs `onnx` for custom functions only."""
    exporter = pytest.importorskip("torch.onnx._internal.torchscript_exporter.onnx_proto_utils")
    monkeypatch.setattr(exporter, "_add_onnxscript_fn", lambda model, _: model)
    path = tmp_path / "w600k_small.onnx"
    torch.onnx.export(
        small_iresnet, faces(1), path, dynamo=False, opset_version=11,
        input_names=["input.1"], dynamic_axes={"input.1": {0: "batch"}},
    )  # fmt: skip
    return path


def test_onnx_network_equals_the_one_it_was_exported_from(onnx_path, small_iresnet):
    recognizer, original = load_recognizer(onnx_path), Recognizer(small_iresnet)
    gradients = []
    for network in (recognizer, original):
        image = faces(3).requires_grad_()
        network(image)[:, 2].sum().backward()
        gradients.append(image.grad)
    assert torch.allclose(recognizer(faces(3)), original(faces(3)), atol=2e-6)
    assert torch.allclose(*gradients, atol=1e-4 * gradients[1].abs().max().item())


def test_onnx_graph_is_read_whole(onnx_path, small_iresnet):
    graph = read_onnx(onnx_path)
    assert graph.inputs == {"input.1": [None, 3, 112, 112]} and len(graph.outputs) == 1
    assert [node.op for node in graph.nodes][-3:] == ["Flatten", "Gemm", "BatchNormalization"]
    strides = [node.attributes["strides"] for node in graph.nodes if node.op == "Conv"]
    assert strides.count([2, 2]) == 8 and strides.count([1, 1]) == 7
    assert (graph.weights["fc.weight"] == small_iresnet.fc.weight.detach().numpy()).all()


def test_broken_recognizer_files_are_named(onnx_path, small_iresnet, tmp_path):
    whole = onnx_path.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("no protocol buffer at all, just words")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "unknown.onnx").write_bytes(whole.replace(b"Flatten", b"Flutter"))
    (tmp_path / "text.pth").write_text("words")
    (tmp_path / "words.bin").write_text("words")
    (tmp_path / "cut.safetensors").write_bytes(TINY_WEIGHTS.read_bytes()[:1000])
    state = small_iresnet.state_dict()
    torch.save({"epoch": 3, "state": state}, tmp_path / "nested.pth")
    torch.save(small_iresnet, tmp_path / "pickled.pth")  # holds code, which is never run
    save_file({k: v for k, v in state.items() if k != "bn2.bias"}, tmp_path / "incomplete.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    for name in (
        "cut.onnx", "text.onnx", "empty.onnx", "unknown.onnx", "text.pth", "words.bin", "cut.safetensors",
        "nested.pth", "pickled.pth", "incomplete.safetensors", "foreign.safetensors", "missing.onnx",
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=name) as caught:
            load_recognizer(tmp_path / name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
        assert "weights_only" not in str(caught.value)
    with pytest.raises(CheckpointError, match="Flutter"):
        load_recognizer(tmp_path / "unknown.onnx")


def test_shipped_tiny_recognizer_is_small_and_cheap():
    assert TINY_WEIGHTS.stat().st_size <= 1_000_000
    assert all(v.dtype == torch.float16 for v in load_file(TINY_WEIGHTS).values())
    recognizer = load_recognizer("tiny")
    with FlopCounterMode(display=False) as counter:
        recognizer(faces(1))
    assert counter.get_total_flops() < 120e6  # a hundredth of IResNet-50's 12.6e9
