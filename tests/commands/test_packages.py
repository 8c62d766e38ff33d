"""What pip installs and what the source distribution holds: all verbs, and nothing is left out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_head import small_head, small_head_data
from talking_model import talking_model

from facegpt.__main__ import VERBS
from facegpt.head.files.format import save_head
from facegpt.model.checkpoint import save_checkpoint
from facegpt.render.renderer import render
from facegpt.standins.synthetic import sample_parameters

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys, setuptools.build_meta as b; out = sys.argv[1]; b.build_wheel(out); b.build_sdist(out)"


def tracked_files() -> list[str]:
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built from a copy of the repository's files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, check=True)
    return out


@pytest.fixture(scope="module")
def site(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed alone into a folder; as without the extras, there is no numba."""
    folder = tmp_path_factory.mktemp("site")
    wheel = next(built.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(folder), str(wheel)], check=True, capture_output=True)
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['numba'] = None")
    return folder


def facegpt(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed console script in a folder; only the installed package can be imported as facegpt."""
    environment = {**os.environ, "PYTHONPATH": str(site), "FACEGPT_HOME": str(folder / "cache")}
    command = [sys.executable, str(site / "bin" / "facegpt"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_every_module_and_asset_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {name for name in tracked_files() if name.startswith("facegpt/")}


def test_the_source_distribution_holds_what_the_repository_holds(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    made = {name for name in names if name == "PKG-INFO" or name.startswith("facegpt.egg-info/")}
    assert names - made == set(tracked_files())


def test_the_wheel_gives_all_verbs_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    listed = facegpt(site, tmp_path, "--help")
    assert listed.returncode == 0 and all(f"  {verb} " in listed.stdout for verb in VERBS)
    doctor = facegpt(site, tmp_path, "doctor", "json=report.json")
    assert doctor.returncode == 0, doctor.stderr
    states = {
        part["name"]: part["state"] for part in json.loads((tmp_path / "report.json").read_text())["parts"]
    }
    assert {states[name] for name in ("built-in head", "tiny recogniser", "tiny LLaVA")} == {"found"}


def test_the_wheel_fits_a_photograph(site: Path, tmp_path: Path) -> None:
    truth = sample_parameters(small_head(), 1, torch.Generator().manual_seed(3))
    shown = render(small_head(), truth, (160, 200), background=torch.tensor([0.2, 0.3, 0.6]))
    pixels = (255 * shown.image[0].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    np.save(tmp_path / "photo.npy", shown.landmarks[0].numpy())
    save_head(small_head_data(), tmp_path / "head.npz")
    words = ["--image", "photo.png", "--landmarks", "photo.npy", "--head", "head.npz", "--out", "fitted"]
    done = facegpt(site, tmp_path, "fit", *words, "size=48")
    assert done.returncode == 0, done.stderr
    assert {"face.glb", "overlay.png", "parameters.json"} == {f.name for f in (tmp_path / "fitted").iterdir()}


def test_the_wheel_chats(site: Path, tmp_path: Path) -> None:
    save_head(small_head_data(), tmp_path / "head.npz")
    model = talking_model(small_head(), tmp_path / "llava")
    save_checkpoint(model, tmp_path / "run" / "checkpoints" / "step_000001", small_head().id)
    words = [
        "--checkpoint",
        "run",
        "--head",
        "head.npz",
        "--max-new-tokens",
        "2",
        "--expect-face",
        "--prompt",
        "Who?",
    ]
    chat = facegpt(site, tmp_path, "chat", *words, "--out", "said")
    assert chat.returncode == 0, chat.stderr
    assert {"reply.txt", "face_0.glb"} <= {file.name for file in (tmp_path / "said").iterdir()}
