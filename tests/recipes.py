"""Recipes as modules: they are scripts, in no package and on no path."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


@cache
def load_recipe(path: str) -> ModuleType:
    """The module of a recipe, by its path from the root of the repository."""
    name = "recipe_" + "_".join(Path(path).with_suffix("").parts)  # data_gen and eval share names
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
