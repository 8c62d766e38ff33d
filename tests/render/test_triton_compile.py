"""The kernels become machine code for a GPU that is not there: the interpreter passes wrong types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the triton package is not installed")

# What the launches pass; every other argument of a kernel is an array of floats.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from importlib import import_module

names = ("interpolate", "normals", "rasterize", "shade")
interpolate, normals, rasterize, shade = (import_module("facegpt.render.backends.triton." + n) for n in names)
indices = {"ids", "triangles", "starts", "incident", "keys"}
short_indices = {"rows", "face", "triangle"}
numbers = {"axis", "step", "channel", "grad_axis", "grad_step", "grad_channel"}
numbers |= {"count", "height", "width", "pixels", "vertex_count"}
fixed = {"BLOCK": 128, "SMALL": 256, "STEP": 1, "CHANNELS": 3}
fixed |= {"GRAD_TABLE": True, "GRAD_WEIGHTS": True, "GRAD_TEXTURE": True}
kernels = {
    rasterize: ["_draw"],
    interpolate: ["_list", "_weights", "_weights_backward", "_interpolate", "_interpolate_backward"],
    normals: ["_normals", "_normals_backward"],
    shade: ["_sample", "_sample_backward", "_shade", "_shade_backward"],
}
# A launch makes a constant of every number that is 1, such as the width of a picture of one column.
for ones in (False, True):
    for module, names in kernels.items():
        for name in names:
            kernel = getattr(module, name)
            kind = "*fp64" if name == "_draw" else "*fp32"
            constants = {a: fixed[a] for a in kernel.arg_names if a in fixed}
            if ones:
                constants |= {a: 1 for a in kernel.arg_names if a in numbers}
            signature = {
                a: "constexpr" if a in constants
                else "*i64" if a in indices
                else "*i32" if a in short_indices
                else "i32" if a in numbers or (name, a) == ("_list", "total")
                else kind
                for a in kernel.arg_names
            }
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            code = triton.compile(source, target=GPUTarget("cuda", 90, 32))
            assert len(code.asm["cubin"]) > 0
            if name == "_draw":
                assert "min.s64" in code.asm["ptx"]
            print(name)
"""


def test_every_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=root,
        env=environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) == 24
