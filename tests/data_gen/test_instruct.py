"""The recipe for plain questions: answered once each, in whole sentences, and resumed where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipes import load_recipe

from facegpt.data.validate import validate_instructions
from facegpt.errors import ConfigError
from facegpt.standins.tiny_llava import TINY_RANDOM, build_tiny_llava, save_tiny_llava

instruct = load_recipe("data_gen/instruct.py")


@pytest.fixture()
def words(tmp_path: Path) -> list[str]:
    model = build_tiny_llava(["What is the face like? It is long."] * 3, TINY_RANDOM)
    save_tiny_llava(*model, tmp_path / "model")
    return [f"out={tmp_path}/chat.json", f"backbone={tmp_path}/model", "count=12", "max_new_tokens=5"]


def test_the_model_itself_answers(words: list[str]) -> None:
    instruct.main(words)


def test_an_interrupted_run_goes_on_where_it_stopped(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(questions: list[str], *rest: object) -> list[str]:
        if len(asked) == 5:
            asked.append("interrupted")
            raise KeyboardInterrupt
        asked.extend(questions)
        return ["It is so."] * len(questions)

    monkeypatch.setattr(instruct, "answer", answer)
    with pytest.raises(KeyboardInterrupt):
        instruct.main([*words, "batch=1"])
    assert validate_instructions(tmp_path / "chat.json") == 5
    instruct.main([*words, "batch=3"])
    assert validate_instructions(tmp_path / "chat.json") == 12
    questions = instruct.draw_questions(12, 0)
    assert sorted(set(asked) - {"interrupted"}) == sorted(questions.values()) and len(asked) == 13
    rows = json.loads((tmp_path / "chat.json").read_text())
    assert [row["id"] for row in rows] == list(questions)
    about = json.loads((tmp_path / "chat.about.json").read_text())
    assert about["seed"] == 0 and len(about["weights_sha256"]) == 64
    with pytest.raises(ConfigError, match="another seed"):
        instruct.main([*words, "seed=1"])


def test_answers_are_cut_at_whole_sentences() -> None:
    cut = instruct.whole_sentences
    assert cut('Yes. "No." And th') == 'Yes. "No."'
    assert cut("Tips:\n\n1. Eat well.\n2. Slee") == "Tips:\n\n1. Eat well."
    assert cut("7 plus 5 is 12.") == "7 plus 5 is 12." and cut("The quick brown") == ""
