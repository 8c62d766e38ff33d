"""The doctor: every part is named, and nothing that is missing or broken stops it."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_head import small_head_data

from facegpt.commands import doctor_parts as doctor
from facegpt.commands.doctor_parts import Part, examine
from facegpt.head.files.format import save_head
from facegpt.head.head_id import BUILTIN_ID, head_id
from facegpt.parts import PARTS, place

PACKAGES = {
    "renderer numba": "numba",
    "renderer triton": "triton",
    "renderer pytorch3d": "pytorch3d",
    "DeepSpeed": "deepspeed",
    "W&B": "wandb",
}


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No built-in head in the cache, no optional package."""
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "cache"))
    for module in PACKAGES.values():
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises ModuleNotFoundError


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> None:
    """A package that runs `code` when it is imported."""
    monkeypatch.setitem(sys.modules, module, None)  # so that what the import leaves is taken away again
    del sys.modules[module]
    (folder / "site" / module).mkdir(parents=True)
    (folder / "site" / module / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder / "site"))
    importlib.invalidate_caches()


def part(name: str, **places: str) -> Part:
    return {part.name: part for part in examine(**places).parts}[name]


def test_every_part_is_listed_and_says_what_to_do_on_a_bare_machine() -> None:
    report = examine()
    assert [part.name for part in report.parts] == list(doctor.ABOUT)
    for one in report.parts:
        assert one.state in ("found", "missing"), one
        assert one.license and one.without and one.source
        assert one.state == "found" or one.note
        assert ("first use" in one.note) == (one.name in ("built-in head", "albedo", "landmarks"))
    states = {part.name: part.state for part in report.parts}
    assert {name for name, state in states.items() if state == "found"} == {
        "built-in head",  # made on first use
        "albedo",
        "landmarks",
        "tiny recogniser",
        "tiny LLaVA",
        "renderer torch",
    } | ({"GPU"} if torch.cuda.is_available() else set())
    assert report.core["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("raise OSError('libother.so.7: cannot open shared object file')", "OSError: libother.so.7"),
        ("import no_such_module_at_all", "it needs no_such_module_at_all, which is not installed"),
        ("import sys; sys.exit(3)", "it ends the program when it is imported"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
def test_broken_packages_are_named_with_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, note: str
) -> None:
    for module in PACKAGES.values():
        install(tmp_path, monkeypatch, module, code)
    parts = {part.name: part for part in examine().parts}
    assert list(parts) == list(doctor.ABOUT)
    for name in PACKAGES:
        assert parts[name].state == "broken" and note in parts[name].note and "\n" not in parts[name].note


def test_a_package_that_works_has_its_version_and_its_chatter_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import sys\n__version__ = '7.5'\nprint('welcome')\nprint('warning', file=sys.stderr)\n"
    install(tmp_path, monkeypatch, "pytorch3d", code)
    monkeypatch.setattr(doctor, "choose", lambda name, device: name)
    monkeypatch.setattr(doctor, "_version", lambda name: "")
    assert (part("renderer pytorch3d").state, part("renderer pytorch3d").version) == ("found", "7.5")
    shown = capsys.readouterr()
    assert "welcome" not in shown.out and "warning" not in shown.err


def test_a_renderer_that_does_not_fit_the_device_is_found_but_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, device: torch.device) -> str:
        raise ValueError("runs on a GPU")

    install(tmp_path, monkeypatch, "triton", "")
    monkeypatch.setattr(doctor, "choose", refuse)
    assert part("renderer triton").state == "found" and "GPU only" in part("renderer triton").note


def test_fetched_parts_are_found_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert part("sface").state == "missing" and part("sface").source == "facegpt fetch sface"
    place("sface").parent.mkdir(parents=True)
    place("sface").write_bytes(b"another file")
    assert part("sface").state == "broken" and "`facegpt fetch sface` replaces it" in part("sface").note
    right = replace(PARTS["sface"], sha256=hashlib.sha256(b"another file").hexdigest(), size=12)
    monkeypatch.setitem(PARTS, "sface", right)
    assert (part("sface").state, part("sface").hash) == ("found", right.sha256[:12])


def test_a_head_file_is_described_by_its_id_and_what_it_holds(tmp_path: Path) -> None:
    data = small_head_data()
    save_head(data, tmp_path / "mine.npz")
    report = {p.name: p for p in examine(head=str(tmp_path / "mine.npz")).parts}
    assert report["head file"].hash == head_id(data)
    assert report["head file"].version == "small test head, 306 vertices"
    assert report["head file"].license == "same as the code"
    assert report["albedo"].version == "3 components, 32 x 32" and "68" in report["landmarks"].version

    bare = replace(
        data,
        texture_mean=None,
        texture_basis=None,
        albedo_names=[],
        **{f"{x}_{y}": None for x in ("landmark", "contour") for y in ("triangles", "barycentric")},
    )
    save_head(bare, tmp_path / "bare.npz")
    report = {p.name: p for p in examine(head=str(tmp_path / "bare.npz")).parts}
    assert report["head file"].state == "found"
    assert report["albedo"].state == report["landmarks"].state == "missing"
    assert "no landmark embedding" in report["landmarks"].note


@pytest.mark.parametrize(
    ("name", "option", "file", "note"),
    [
        ("head file", "head", "broken.npz", "broken.npz is not a facegpt head file"),
        ("albedo", "head", "broken.npz", "broken.npz"),
        ("head file", "head", "broken.pkl", "broken.pkl"),
        ("head file", "head", "nowhere.npz", "does not exist"),
        ("ArcFace", "recognizer", "broken.onnx", "broken.onnx"),
        ("ArcFace", "recognizer", "nowhere.pth", "nowhere.pth: no such recogniser file"),
        ("LLaVA", "backbone", "broken.npz", "no folder"),
    ],
)
def test_a_broken_file_is_named_and_the_rest_is_still_listed(
    tmp_path: Path, name: str, option: str, file: str, note: str
) -> None:
    for broken in ("broken.npz", "broken.pkl", "broken.onnx"):
        (tmp_path / broken).write_bytes(b"nothing of the kind")
    report = examine(**{option: str(tmp_path / file)})
    found = {part.name: part for part in report.parts}[name]
    assert found.state in ("broken", "missing") and note in found.note
    assert len(report.parts) == len(doctor.ABOUT)


def test_a_backbone_folder_is_checked_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    shards = {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "model-1.safetensors").write_bytes(b"x" * 50)
    (tmp_path / "model-2.safetensors").write_bytes(b"")  # a download that was cut off
    found = part("LLaVA", backbone=str(tmp_path))
    assert found.state == "broken" and "model-2.safetensors" in found.note and "model-1" not in found.note
    (tmp_path / "model-2.safetensors").write_bytes(b"x" * 50)
    found = part("LLaVA", backbone=str(tmp_path))
    assert found.state == "found" and found.version.startswith("llava, ") and len(found.hash) == 12


def test_tiny_weights_of_another_head_are_called_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny LLaVA", "tiny recogniser"):  # made on another kind of processor, with the same head
        assert part(name).state == "found" and not part(name).note
    monkeypatch.setattr(doctor, "is_builtin_id", lambda id: False)
    for name in ("tiny LLaVA", "tiny recogniser"):
        assert part(name).state == "found" and f"which is {BUILTIN_ID} now" in part(name).note


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="Some GPU", total_memory=48 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    assert part("GPU").version.startswith("Some GPU, CUDA") and "2 of them, 48 GiB" in part("GPU").note
