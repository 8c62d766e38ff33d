"""One world for all tests of the evaluation recipes."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import pytest
from evaluation_world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", path / "cache")
        yield make_world(path)
