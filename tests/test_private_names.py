"""Private names of other packages that we use: an upgrade may take them away.

Each is looked up here, so that a new version says what it broke before some run does.
"""

import ast
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module, the names in it that we use, and what stops working without them.
PRIVATE_NAMES = {
    "torch._C": {"_are_functorch_transforms_active": "head/lbs.py steps aside for torch.func"},
    "torch.cpu": {"_is_amx_tile_supported": "model/backbone.py finds out whether bfloat16 is fast"},
    "os": {"_exit": "data/in_order.py ends the processes of a parent that was killed"},
    "pickle": {"_Unpickler": "head/files/unpickle.py bounds what a pickle may build"},
    "deepspeed.ops": {"__compatible_ops__": "training/engine.py keeps it from compiling collectives"},
    "triton.runtime.interpreter": {
        "InterpretedFunction": "render/backends/triton knows whether its kernels are interpreted"
    },
}


@pytest.mark.parametrize("module", PRIVATE_NAMES)
def test_private_names_of_other_packages_are_still_there(module: str) -> None:
    package = module.partition(".")[0]
    pytest.importorskip(package, reason=f"the {package} package is not installed")
    for name, purpose in PRIVATE_NAMES[module].items():
        try:
            found = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            version = getattr(import_module(package), "__version__", "of this Python")
            pytest.fail(f"{package} {version} has no {module}.{name} any more: {purpose}")


def test_a_name_that_is_gone_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRIVATE_NAMES, "torch.cpu", {"_never_was": "something slows down"})
    with pytest.raises(pytest.fail.Exception, match=r"torch \d.* has no torch.cpu._never_was any more"):
        test_private_names_of_other_packages_are_still_there("torch.cpu")


def test_no_other_private_name_is_used() -> None:
    """Of modules, as `module._name`; private names of their objects are tested with what uses them."""
    listed = {f"{module}.{name}" for module, names in PRIVATE_NAMES.items() for name in names}
    used = {
        name
        for folder in ("facegpt", "train", "data_gen", "eval", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        for name in private_names(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert used <= listed, f"add what needs them to the list above: {sorted(used - listed)}"
    assert "torch._C._are_functorch_transforms_active" in used  # the search finds something


def private_names(tree: ast.Module) -> set[str]:
    """Dotted names with a private part that begin with an imported module of another package."""
    modules: set[str] = set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("facegpt"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if is_private(name) and not name.startswith("__future__")}
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name.partition(".")[0] in modules and is_private(name.rpartition(".")[2]):
            found.add(name)
    return {name for name in found if not any(other.startswith(name + ".") for other in found)}


def is_private(name: str) -> bool:
    """`__version__`, `__file__` and the like are not: they are Python's own."""
    public = ("__version__", "__file__", "__name__", "__doc__", "__init__")
    return any(part.startswith("_") and part not in public for part in name.split("."))
