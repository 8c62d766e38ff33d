"""The recipe for synthetic faces: its files hold what was rendered, and an interrupted run is completed."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image
from recipes import load_recipe
from small_head import small_head_data

from facegpt.config import load_config
from facegpt.data.sources import Instruct
from facegpt.data.targets import to_tensor
from facegpt.data.validate import validate_records
from facegpt.errors import ConfigError, SampleError
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.perception.skin import skin_probability
from facegpt.render.renderer import render

synthesize = load_recipe("data_gen/synthesize.py")


@pytest.fixture(autouse=True, scope="module")
def separate_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    save_head(small_head_data(), folder / "head.npz")
    words = [f"out={folder}/data", f"head={folder}/head.npz", "train=7", "test=2", "size=48", "shard=3"]
    synthesize.main([*words, "instruct=5", "seed=1"])
    return folder, words


def test_the_files_hold_the_faces_that_were_rendered(made):
    folder, _ = made
    head = HeadModel.load(folder / "head.npz")
    records = validate_records(folder / "data" / "train")
    assert records.ids == [f"train-{index:06d}" for index in range(7)]
    assert records.metadata["head_id"] == head.id and records.metadata["count"] == 7
    vectors = torch.stack([record.parameters for record in records])
    rendering = render(head, FaceParameters.from_vector(vectors, head.layout), 48)
    for i, record in enumerate(records):
        assert torch.allclose(record.landmarks, rendering.landmarks[i], atol=1e-3)
        assert (record.skin_mask - rendering.skin_mask[i]).abs().mean() < 0.01
        inside = rendering.mask[i] > 0
        difference = (to_tensor(record.image) - rendering.image[i].clamp(0, 1))[:, inside]
        assert difference.abs().mean() < 0.03  # noise and JPEG
    assert validate_records(folder / "data" / "test").ids == ["test-000000", "test-000001"]


def test_splits_and_shards_do_not_share_faces(made):
    folder, _ = made
    both = [record for split in ("train", "test") for record in validate_records(folder / "data" / split)]
    assert len({tuple(record.parameters[:4].tolist()) for record in both}) == 9


def test_texts_and_a_picture_to_look_at_are_written(made):
    folder, _ = made
    assert len(Instruct(folder / "data" / "instruct.json")) == 5
    assert len(Instruct(folder / "data" / "instruct_test.json")) == 1
    with Image.open(folder / "data" / "faces.png") as sheet:
        assert sheet.width > 7 * 40


def test_only_missing_shards_are_made_again_and_come_out_equal(made):
    folder, words = made
    shards = sorted((folder / "data" / "train").glob("*.parquet"))
    assert len(shards) == 3
    before = [shard.read_bytes() for shard in shards]
    shards[1].unlink()
    kept = shards[0].stat().st_mtime_ns
    synthesize.main([*words, "instruct=0", "seed=1"])
    assert [shard.read_bytes() for shard in shards] == before
    assert shards[0].stat().st_mtime_ns == kept


def test_other_settings_do_not_mix_with_what_is_there(made):
    _, words = made
    for word in ("seed=2", "size=32", "train=8"):
        with pytest.raises(ConfigError, match=word.split("=")[0] if word[0] != "t" else "count"):
            synthesize.main([*words, "instruct=0", "seed=1", word])


def test_supervision_like_a_detectors_leaves_the_faces_and_the_test_split_alone(made, tmp_path):
    folder, words = made
    more = ["landmark_noise=4", "mask=color", "instruct=0", "seed=1", f"out={tmp_path}/data"]
    synthesize.main([*words, *more])
    for split in ("train", "test"):
        exact = list(validate_records(folder / "data" / split))
        noisy = list(validate_records(tmp_path / "data" / split))
        for one, other in zip(exact, noisy, strict=True):
            assert torch.equal(one.parameters, other.parameters)
            assert torch.equal(to_tensor(one.image), to_tensor(other.image))
            same = split == "test"
            assert torch.equal(one.landmarks, other.landmarks) == same
            assert torch.equal(one.skin_mask, other.skin_mask) == same
            if not same:  # 4 px at 224 are 0.86 at 48
                assert 0.3 < (one.landmarks - other.landmarks).std() < 2.2
                color = skin_probability(to_tensor(other.image)[None])[0]  # of the JPEG: not quite the same
                assert (other.skin_mask - color).abs().mean() < 0.1
    for word in ("landmark_noise=3", "mask=truth", "photographic=true"):
        with pytest.raises(ConfigError, match=word.split("=")[0]):
            synthesize.main([*words, *more, word])
    with pytest.raises(ConfigError, match="landmark_noise"):
        synthesize.main([*words, *more, "landmark_noise=nan"])


def test_photographic_images_show_the_same_faces(made, tmp_path):
    folder, words = made
    more = ["photographic=true", "instruct=0", "seed=1", f"out={tmp_path}/data"]
    synthesize.main([*words, *more])
    for split, changed in (("train", True), ("test", False)):
        exact = list(validate_records(folder / "data" / split))
        degraded = list(validate_records(tmp_path / "data" / split))
        assert all(torch.equal(a.parameters, b.parameters) for a, b in zip(exact, degraded, strict=True))
        assert all(torch.equal(a.landmarks, b.landmarks) for a, b in zip(exact, degraded, strict=True))
        pairs = zip(exact, degraded, strict=True)
        assert any(not torch.equal(to_tensor(a.image), to_tensor(b.image)) for a, b in pairs) == changed


def test_a_folder_from_before_these_settings_goes_on(made):
    folder, words = made
    path = folder / "data" / "train" / "dataset.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({key: before[key] for key in before if key not in synthesize.EXACT}))
    synthesize.main([*words, "instruct=0", "seed=1"])
    assert json.loads(path.read_text()) == before


def test_the_shipped_configuration_loads():
    path = Path(__file__).parents[2] / "configs" / "tiny" / "data.yaml"
    settings = load_config(synthesize.SynthesisSettings, path)
    assert settings.head == "builtin" and settings.train > settings.test > 0
    for word in ("shard=0", "train=-1", "instruct=-3", "quality=101"):
        with pytest.raises(ConfigError, match=word.partition("=")[0]):
            load_config(synthesize.SynthesisSettings, path, [word])


def test_broken_metadata_is_one_sentence(made, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "dataset.json").write_text("[" * 100_000)
    _, words = made
    with pytest.raises(SampleError, match=r"dataset\.json"):
        synthesize.main([*words, f"out={tmp_path}"])


def test_metadata_is_plain_json(made):
    folder, _ = made
    metadata = json.loads((folder / "data" / "test" / "dataset.json").read_text())
    assert metadata["layout"]["shape"] == 6 and metadata["seed"] == 1


def test_texts_are_written_for_faces_whose_facts_are_known_and_only_where_missing(tmp_path, made):
    words = [f"out={tmp_path}", "head=builtin", "train=3", "test=0", "size=32", "instruct=0", "seed=1"]
    synthesize.main([*words, "texts=4", "talk=2"])
    path = tmp_path / "train" / "descriptions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(row["texts"]) for row in rows] == [4] * 3 == [2 * len(row["conversation"]) for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    synthesize.main([*words, "texts=4", "talk=2"])
    again = {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert again == {row["id"]: row for row in rows}
    validate_records(tmp_path / "train")
    _, nameless = made
    with pytest.raises(ConfigError, match="components have names"):
        synthesize.main([*nameless, "instruct=0", "seed=1", "texts=1"])
