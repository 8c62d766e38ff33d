"""The face tower gives each token its map, its pixels and the reader's view, in the type of its model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tied_llava import CHANNELS, SIDE, small_trunk
from transformers import AutoModel

from facegpt.errors import CheckpointError
from facegpt.model.face_tower import FaceTower


def small_tower(outputs: int = 0) -> FaceTower:
    config, weights = small_trunk()
    config.reader_outputs, config.reader_width, config.reader_hidden = outputs, 3, 7
    torch.manual_seed(0)
    tower = FaceTower(config)
    tower.trunk.load_state_dict(weights)
    for parameter in (tower.gain, tower.center, tower.spread):
        parameter.data.uniform_(0.5, 1.5)
    return tower.requires_grad_(False)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_a_token_holds_the_map_and_the_pixels_of_its_cell() -> None:
    tower, weights = small_tower(), small_trunk()[1]
    hidden = F.relu(F.conv2d(images(), weights["w1_kernel"], stride=8))
    features = F.conv2d(hidden, weights["w2_kernel"], weights["w3_vector"], stride=4)
    tokens = tower(images(), output_hidden_states=True, return_dict=True).hidden_states[-1]
    assert tokens.shape == (2, 4, CHANNELS + 12)
    row, column = 1, 0  # token 2
    cell = images()[:, :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
    pixels = [
        cell[:, color, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].mean(dim=(1, 2))
        for color in range(3)
        for y in range(2)
        for x in range(2)
    ]
    raw = torch.cat([features[:, :, row, column], torch.stack(pixels, dim=1)], dim=1)
    expected = (raw - tower.center) / tower.spread * tower.gain
    assert torch.allclose(tokens[:, 2], expected, atol=1e-5)


def test_what_the_reader_says_ends_every_token() -> None:
    tower = small_tower(outputs=5)
    tokens = tower(images()).last_hidden_state
    facts = tower.reader(tower.local_tokens(images())) * tower.gain[-5:]
    assert tokens.shape == (2, 4, CHANNELS + 12 + 5)
    assert torch.allclose(tokens[:, :, -5:], facts[:, None].expand(-1, 4, -1), atol=1e-6)


def test_a_saved_tower_needs_no_code_and_stays_precise_under_a_bfloat16_model(tmp_path: Path) -> None:
    tower = small_tower(outputs=5)
    tower.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    exact = AutoModel.from_pretrained(tmp_path, trust_remote_code=False)
    assert torch.allclose(exact(images()).last_hidden_state, tower(images()).last_hidden_state, atol=1e-6)
    rounded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {name for name, p in rounded.named_parameters() if p.dtype == torch.bfloat16} == {"gain"}
    assert rounded.dtype == torch.bfloat16
    tokens = rounded(images()).last_hidden_state
    assert tokens.dtype == torch.bfloat16
    assert torch.allclose(tokens.float(), tower(images()).last_hidden_state, rtol=0.02, atol=1e-3)


def test_autocast_leaves_the_tower_alone() -> None:
    tower = small_tower(outputs=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = tower(images()).last_hidden_state
    assert torch.equal(within, tower(images()).last_hidden_state)


@pytest.mark.parametrize(("key", "value"), [("channels", 7), ("patch_size", 16), ("image_size", 128)])
def test_a_trunk_of_another_size_is_refused(key: str, value: int) -> None:
    config, _ = small_trunk()
    setattr(config, key, value)
    with pytest.raises(CheckpointError, match="trunk"):
        FaceTower(config)


def test_a_tower_without_a_trunk_is_refused() -> None:
    config, _ = small_trunk()
    config.trunk = None
    with pytest.raises(CheckpointError, match="graph"):
        FaceTower(config)
