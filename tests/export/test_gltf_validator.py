"""The Khronos glTF validator on every kind of GLB that is written; needs node and npm's gltf-validator.

npm install -g gltf-validator
NODE_PATH=$(npm root -g) python -m pytest -rs tests/export/test_gltf_validator.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from small_head import small_head

from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.head.mesh import Mesh
from facegpt.head.model import HeadModel

SCRIPT = """
const validator = require("gltf-validator"), fs = require("fs");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report)));
"""


@cache
def missing() -> str:
    """Why the validator cannot run; empty where it can."""
    if shutil.which("node") is None:
        return "node is not installed, so the Khronos glTF validator cannot run"
    found = subprocess.run(["node", "-e", 'require("gltf-validator")'], capture_output=True, timeout=60)
    if found.returncode:
        return "node does not find gltf-validator: npm install -g gltf-validator, NODE_PATH=$(npm root -g)"
    return ""


@pytest.fixture(autouse=True)
def skip_without_validator() -> None:
    if reason := missing():
        pytest.skip(reason)


def report_on(path: Path) -> dict[str, Any]:
    done = subprocess.run(["node", "-e", SCRIPT, str(path)], capture_output=True, timeout=60, check=True)
    issues: dict[str, Any] = json.loads(done.stdout)["issues"]
    return issues


@pytest.mark.parametrize("kind", ["colored", "textured", "rigged", "rigged mean", "rigged built-in"])
def test_the_validator_finds_no_error_and_no_warning(tmp_path: Path, kind: str) -> None:
    head = HeadModel.builtin() if kind == "rigged built-in" else small_head()
    face = head.mean_parameters(neck=True, eyes=True)
    if kind != "rigged mean":
        draw = torch.Generator().manual_seed(0)
        face = face.replace(
            shape=torch.randn(face.shape.shape, generator=draw),
            expression=torch.rand(face.expression.shape, generator=draw),
            pose=0.2 * torch.randn(face.pose.shape, generator=draw),
            neck=0.2 * torch.randn(1, 3, generator=draw),
        )
    path = tmp_path / "face.glb"
    if kind.startswith("rigged"):
        export_rigged_head(head, face, path)
    else:
        mesh = head.mesh(face)
        colors = torch.rand(mesh.vertices.shape)
        export_mesh(mesh if kind == "textured" else Mesh(mesh.vertices, mesh.triangles, colors), path)
    issues = report_on(path)
    assert issues["numErrors"] == 0 and issues["numWarnings"] == 0, issues["messages"]


def test_the_validator_would_find_a_broken_file(tmp_path: Path) -> None:
    """So that the test above is known to be able to fail."""
    head = small_head()
    path = tmp_path / "face.glb"
    export_rigged_head(head, head.mean_parameters(), path)
    path.write_bytes(path.read_bytes().replace(b'"VEC3"', b'"VEC2"', 1))
    assert report_on(path)["numErrors"] > 0
