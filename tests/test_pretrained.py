"""The library's front door: five lines to a mesh, saving, loading, the hub and its model card."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trimesh
from small_facegpt import small_facegpt
from small_head import small_head, small_head_data
from talking_model import talking_model

import facegpt
from facegpt import ChatSession, FaceGPT, HeadModel
from facegpt.errors import CheckpointError, HeadMismatchError, SampleError
from facegpt.files import read_json, write_json
from facegpt.head.files.format import save_head
from facegpt.model.checkpoint import merge_lora, save_checkpoint

ROOT = Path(facegpt.__file__).parents[1]
CONFIG = """
model: {backbone: tiny, recognizer: sface}
data: {folder: /home/maker/secret, sources: {image_to_face: {kind: image_to_face, path: train, weight: 2}}}
objective: {pixel: 2.5, landmark: 2.0e-4}
"""
RESULT = {
    "n": 160,
    "landmark_error_px": {"model": 3.4812, "mean_face": 17.6, "interval_95": {"model": [3.25, 3.78]}},
    "yaw": {"n": 12},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it, of a model that says `<FACE>`, beside its head file."""
    path = tmp_path_factory.mktemp("pretrained")
    save_head(small_head_data(), path / "head.npz")
    checkpoint = path / "run" / "checkpoints" / "step_000007"
    save_checkpoint(talking_model(small_head(), path / "llava"), checkpoint, small_head().id, {"step": 7})
    (path / "run" / "config.yaml").write_text(CONFIG)
    rows = [
        {"kind": "train", "step": 7, "loss": 2.5, "face/pixel": 0.047, "time/data": 0.1},
        {"kind": "validation", "step": 7, "image/landmark_error": 4.77},
    ]
    (path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(run: Path, folder: Path | None = None, **more: Any) -> FaceGPT:
    return FaceGPT.from_pretrained(folder or run / "run", head=run / "head.npz", device="cpu", **more)


def examples() -> list[str]:
    """The five lines, as the package and (where it has such a block) the README show them."""
    lines = textwrap.dedent((facegpt.__doc__ or "").split("\n\n")[1])
    return [lines, *re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)]


@pytest.mark.parametrize("lines", examples())
def test_five_lines_lead_from_the_model_that_ships_to_a_mesh(
    lines: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = HeadModel.builtin()
    save_checkpoint(talking_model(head, tmp_path / "llava"), tmp_path / "shipped", head.id)
    monkeypatch.setattr("facegpt.chat.SHIPPED_MODEL", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    assert len([line for line in lines.splitlines() if line.strip()]) == 5
    exec(lines, {})
    assert len(trimesh.load_mesh(tmp_path / "face.glb", process=False).vertices) >= len(head.v_template)


def test_importing_facegpt_imports_nothing_heavy_and_says_what_it_does_not_have() -> None:
    code = "import sys, facegpt; print(dir(facegpt)); sys.exit('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ChatSession" in shown.stdout
    with pytest.raises(AttributeError, match="no attribute 'ChatSesion'"):
        facegpt.ChatSesion  # noqa: B018


@pytest.mark.parametrize("merge", [True, False])
def test_a_saved_model_says_what_it_said_before(run: Path, tmp_path: Path, merge: bool) -> None:
    model = load(run, merge=merge)
    model.save_pretrained(tmp_path / "saved")
    model.save_pretrained(tmp_path / "saved")  # again, over itself
    again = load(run, tmp_path / "saved", merge=not merge)
    said, repeated = (ChatSession(m, 4).say("Show me the face.") for m in (model, again))
    assert repeated.text == said.text and said.faces
    assert torch.allclose(repeated.faces[0].to_vector(), said.faces[0].to_vector(), atol=1e-4)
    files = {file.name for file in (tmp_path / "saved").iterdir()}
    weights = {"adapter.safetensors", "face_head.safetensors", "facegpt.json"}
    assert files == weights | {"README.md", "metrics.jsonl"}
    assert read_json(tmp_path / "saved" / "facegpt.json")["extra"] == {"step": 7}


def test_a_merged_model_is_saved_whole(run: Path, tmp_path: Path) -> None:
    merge_lora(run / "run" / "checkpoints" / "step_000007", tmp_path / "merged", torch.float32)
    model = load(run, tmp_path / "merged")
    model.save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "merged")
    again = load(run, tmp_path / "saved")
    assert ChatSession(again, 4).say("Why?").text == ChatSession(model, 4).say("Why?").text
    assert "backbone: in this folder" in (tmp_path / "saved" / "README.md").read_text()


def test_the_card_tells_data_losses_numbers_head_and_licences_of_the_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "reconstruct.json").write_text(json.dumps(RESULT))
    load(run).save_pretrained(tmp_path / "saved", results=[tmp_path / "reconstruct.json"])
    card = (tmp_path / "saved" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: facegpt\n") and small_head().id in card
    assert "- image_to_face: image_to_face, weight 2" in card and "secret" not in card
    assert "- weights: pixel 2.5, landmark 2.0e-4" in card
    assert "- train, step 7: loss 2.5, face/pixel 0.047\n" in card
    assert "- validation, step 7: image/landmark_error 4.77" in card
    assert "| landmark_error_px | 3.481 [3.25, 3.78] | mean_face 17.6 | 160 | reconstruct |" in card
    assert "| recogniser in the training, `sface`; not in this folder | Apache-2.0 |" in card
    assert "FLAME: non-commercial" in card and "- step: 7" in card


def test_what_cannot_be_loaded_or_saved_is_one_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadMismatchError, match="was trained with head model"):
        FaceGPT.from_pretrained(run / "run", device="cpu")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        FaceGPT.from_pretrained(tmp_path / "nowhere" / "at all", device="cpu")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    with pytest.raises(CheckpointError, match="exists and is no checkpoint"):
        load(run).save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken" / "thesis.tex").exists()
    with pytest.raises(CheckpointError, match=r"head_id=head\.id"):
        small_facegpt().save_pretrained(tmp_path / "new")
    small_facegpt().save_pretrained(tmp_path / "new", head_id="some-head")
    assert "`some-head`" in (tmp_path / "new" / "README.md").read_text()
    with pytest.raises(SampleError, match=r"no.json cannot be read"):
        load(run).save_pretrained(tmp_path / "saved", results=["no.json"])
    assert not (tmp_path / "saved").exists()


def named_backbone(run: Path, folder: Path) -> Path:
    """The checkpoint, but its backbone has a name that everybody knows."""
    shutil.copytree(run / "run" / "checkpoints" / "step_000007", folder / "named")
    description = read_json(folder / "named" / "facegpt.json")
    write_json(folder / "named" / "facegpt.json", {**description, "backbone": "tiny"})
    return folder / "named"


class FakeHub:
    """Stands in for the hub: repositories are folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, bool] = {}

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
        if name.startswith("other/"):
            raise PermissionError("403 Forbidden:\n you may not")
        self.private[name] = private
        return f"https://hub/{name}"

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, self.root / repo_id)

    def download(self, name: str, allow_patterns: list[str]) -> str:
        if not (self.root / name).exists():
            raise OSError("404 Not Found")
        folder = SimpleNamespace(path=self.root / "cache" / name)
        folder.path.mkdir(parents=True)
        for file in (self.root / name).iterdir():
            if any(file.match(pattern) for pattern in allow_patterns):
                shutil.copy(file, folder.path)
        return str(folder.path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub(tmp_path / "hub")
    monkeypatch.setattr("facegpt.pretrained.HfApi", lambda token: hub)
    monkeypatch.setattr("facegpt.pretrained.snapshot_download", hub.download)
    return hub


def test_a_model_goes_to_the_hub_and_comes_back(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    model = load(run, named_backbone(run, tmp_path), backbone=run / "llava")
    assert model.push_to_hub("me/face") == "https://hub/me/face"
    assert hub.private == {"me/face": True}
    (hub.root / "me" / "face" / "evil.pkl").touch()
    again = load(run, Path("me/face"), backbone=run / "llava")
    assert ChatSession(again, 4).say("Why?").text == ChatSession(model, 4).say("Why?").text
    assert not (hub.root / "cache" / "me" / "face" / "evil.pkl").exists()


def test_what_the_hub_refuses_is_one_sentence(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder that nobody else has"):
        load(run).push_to_hub("me/face")
    model = load(run, named_backbone(run, tmp_path), backbone=run / "llava")
    with pytest.raises(CheckpointError, match="the hub does not take other/face: 403 Forbidden: you may not"):
        model.push_to_hub("other/face")
    with pytest.raises(CheckpointError, match=r"there is no folder me/nothing, and the hub .* 404"):
        FaceGPT.from_pretrained("me/nothing")
