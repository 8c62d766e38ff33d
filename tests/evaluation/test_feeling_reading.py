"""The likelihood of words as answers."""

from __future__ import annotations

import pytest
import torch
from small_head import small_head
from talking_model import talking_model

from facegpt.data.conversation import encode_conversation
from facegpt.evaluation.feeling_reading import WORDS, named_feelings, word_likelihoods
from facegpt.model.facegpt import FaceGPT
from facegpt.sample import Message

TEXT = "The jaw is open. What does the person feel?"
ANSWERS = ["it", "the jaw is open", "smiles"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FaceGPT:
    return talking_model(small_head(), tmp_path_factory.mktemp("reading") / "llava", speaks=False)


@torch.no_grad()
def whole_pass(model: FaceGPT, word: str) -> float:
    """The same number from one pass over the whole conversation, without a cache."""
    encoded = encode_conversation([Message("user", TEXT), Message("assistant", word)], model.processor)
    ids = torch.tensor([encoded.input_ids])
    states = model.hidden_states(ids, torch.ones_like(ids), None).states
    logits = model.vlm.get_output_embeddings()(states[0]).double().log_softmax(dim=-1)
    places = [place for place, own in enumerate(encoded.label_mask) if own]
    return sum(float(logits[place - 1, encoded.input_ids[place]]) for place in places)


def test_a_word_is_as_likely_as_in_a_pass_over_the_whole_conversation(model: FaceGPT) -> None:
    found = word_likelihoods(model, TEXT, ANSWERS)
    assert found.tolist() == pytest.approx([whole_pass(model, word) for word in ANSWERS], abs=1e-4)


def test_a_word_does_not_depend_on_the_words_beside_it(model: FaceGPT) -> None:
    together = word_likelihoods(model, TEXT, ANSWERS)
    alone = torch.cat([word_likelihoods(model, TEXT, [word]) for word in ANSWERS])
    assert torch.allclose(together, alone, atol=1e-4)


def test_corrections_take_off_what_is_likely_without_and_with_any_situation(
    model: FaceGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for _, word in WORDS]
    told = {"The roof fell in.": "terrified", "The dog came back.": "joyful"}

    def likelihoods(_: FaceGPT, text: str, asked: list[str]) -> torch.Tensor:
        assert asked == words
        table = torch.zeros(len(words))
        table[words.index("happy")] = 5.0  # whatever the text
        for situation, word in told.items():
            if text.startswith(situation):
                table[words.index("bored")] = 4.0  # with any situation
                table[words.index(word)] = 3.0
        return table

    monkeypatch.setattr("facegpt.evaluation.feeling_reading.word_likelihoods", likelihoods)
    assert named_feelings(model, list(told)) == {
        "calibrated": ["fear", "happiness"],
        "pmi": ["boredom", "boredom"],
        "likelihood": ["happiness", "happiness"],
    }
