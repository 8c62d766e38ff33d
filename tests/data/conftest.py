"""Tests of the data room keep the cache of `datasets` in a folder of their own."""

import datasets
import pytest


@pytest.fixture(scope="session", autouse=True)
def separate_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield
