"""A head is named alike on every processor, and what earlier versions named stays known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_head import small_head, small_head_data

from facegpt.head import head_id as ids
from facegpt.head.files.format import HeadData, load_head_data, save_head
from facegpt.head.head_id import BUILTIN_ID, head_id, rounded_hash
from facegpt.head.model import HeadModel


def test_the_id_notices_every_array() -> None:
    data = small_head_data()
    seen = {head_id(data)}
    for name, array in data.arrays().items():
        if name.startswith("regions/"):
            changed = replace(data, regions=data.regions | {name.removeprefix("regions/"): ~array})
        elif name == "parents":
            changed = replace(data, parents=np.array([-1, 0, 1, 1, 2]))
        elif array.dtype == np.int64:
            changed = replace(data, **{name: array[::-1]})
        else:
            moved = array.copy()
            moved.flat[7] += 1e-4
            changed = replace(data, **{name: moved})
        seen.add(head_id(changed))
    assert len(seen) == len(data.arrays()) + 1


def test_a_file_is_named_by_its_arrays_bit_for_bit_and_not_by_its_notes() -> None:
    data = small_head_data()
    assert head_id(replace(data, metadata={"name": "x"})) == head_id(data)
    template = data.v_template.copy()
    template[0, 0] = np.nextafter(template[0, 0], np.float32(1))
    assert head_id(replace(data, v_template=template)) != head_id(data)


def test_the_id_is_this_on_every_machine() -> None:
    """Known numbers, known id: byte order and layout in memory do not count."""
    assert head_id(known_head()) == "c4c4a9de7504114e"
    turned = {name: np.asfortranarray(array) for name, array in known_head().arrays().items()}
    del turned["regions/face"]
    assert head_id(replace(known_head(), **turned)) == head_id(known_head())


def known_head() -> HeadData:
    """A head of exact numbers."""
    return HeadData(
        v_template=np.arange(9.0).reshape(3, 3) / 128,
        triangles=np.array([[0, 1, 2]]),
        shape_basis=np.arange(18.0).reshape(3, 3, 2) / 1024,
        expression_basis=np.zeros((3, 3, 0)),
        joint_regressor=np.array([[0.25, 0.25, 0.5]]),
        parents=np.array([-1]),
        skinning_weights=np.ones((3, 1)),
        regions={"face": np.array([True, True, False])},
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_head_keeps_its_id_in_every_format(tmp_path, suffix: str) -> None:
    save_head(small_head_data(), tmp_path / f"head{suffix}")
    assert head_id(load_head_data(tmp_path / f"head{suffix}")) == small_head().id


def test_ids_of_the_first_version_are_still_known() -> None:
    assert HeadModel(known_head()).has_id("045a1a08672ab150")  # as facegpt 0.1 wrote it into checkpoints
    head = small_head()
    assert head.id != rounded_hash(head.data)
    assert head.has_id(head.id) and head.has_id(rounded_hash(head.data))
    assert not any(head.has_id(other) for other in (small_head(1).id, rounded_hash(small_head(1).data), None))


def test_the_old_hash_is_only_taken_when_the_ids_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    head = small_head()
    monkeypatch.setattr("facegpt.head.model.rounded_hash", lambda data: pytest.fail("it takes time"))
    assert head.has_id(head.id)


def test_the_builtin_head_has_a_name_and_knows_what_it_was_called_on_other_processors() -> None:
    head = HeadModel.builtin()
    assert head.id == BUILTIN_ID == "builtin-1"
    for known in ("builtin-1", "92de9cc3a3c9b7d1", *ids.BUILTIN_HASHES):  # the second is in our assets
        assert head.has_id(known)
    assert not head.has_id("builtin-2") and not head.has_id(small_head().id) and not head.has_id(None)
    assert not small_head().has_id(BUILTIN_ID)


def test_a_changed_copy_of_the_builtin_head_is_another_head() -> None:
    data = HeadModel.builtin().data
    wider = HeadModel(replace(data, v_template=data.v_template * [1.01, 1, 1]))
    assert wider.id != BUILTIN_ID and not wider.has_id(BUILTIN_ID)
