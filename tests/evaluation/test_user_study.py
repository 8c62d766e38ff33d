"""The study: a page that tells nothing of the methods, and what the answers to it say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_world import COUNT, World
from html_pages import parse
from recipes import load_recipe

from facegpt.errors import ConfigError, SampleError

study = load_recipe("eval/user_study.py")


@pytest.fixture()
def words(world: World, tmp_path: Path) -> list[str]:
    ids = np.array([f"face-{n}" for n in range(COUNT)])
    vectors = world.truth.to_vector().numpy()
    for name, rows in (
        ("right", vectors),
        ("wrong", vectors[::-1]),
        ("other", vectors[np.roll(np.arange(COUNT), 1)]),
    ):
        np.savez(tmp_path / f"{name}.npz", ids=ids, codes=rows)
    files = ",".join(str(tmp_path / f"{name}.npz") for name in ("right", "wrong", "other"))
    head = f"head={world.path / 'head.npz'}"
    return [
        f"data={world.path / 'faces'}",
        f"predictions={files}",
        head,
        f"out={tmp_path / 's.html'}",
        "size=32",
    ]


def content(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def test_the_page_is_blind_balanced_and_the_same_for_a_seed(words: list[str], tmp_path: Path) -> None:
    page = tmp_path / "s.html"
    study.main([*words, "n=6"])
    text, key = page.read_text(encoding="utf-8"), json.loads((tmp_path / "s_key.json").read_text())
    assert not any(name in text for name in ("right.npz", "wrong", "other.npz"))
    checker = parse(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))
    assert "press 1 or 2" in " ".join(checker.text.split())
    data = content(page)
    sets = [frozenset(key["methods"][c["key"]] for c in item["choices"]) for item in data["items"]]
    assert len(sets) == 6 and all(sets.count(one) == 2 for one in sets)  # each pair of methods twice
    assert all(item["picture"].startswith("data:image/jpeg;base64,") for item in data["items"])
    study.main([*words, "n=6"])
    assert page.read_text(encoding="utf-8") == text
    study.main([*words, "n=3", "at_once=3", "kind=image", "seed=1"])
    assert [len(item["choices"]) for item in content(page)["items"]] == [3] * 3


def test_answers_are_told_by_method(words: list[str], tmp_path: Path) -> None:
    study.main([*words, "n=6", "at_once=3"])
    data, key = content(tmp_path / "s.html"), json.loads((tmp_path / "s_key.json").read_text())["methods"]
    rows = []
    for person in ("p", "q"):
        for item in data["items"]:
            shown = [choice["key"] for choice in item["choices"]]
            chosen = next(handle for handle in shown if key[handle] == "right")
            row = {"study": data["id"], "participant": person, "item": item["id"]}
            rows.append({**row, "shown": shown, "chosen": chosen, "seconds": 1.0})
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study.main([f"out={tmp_path / 's.html'}", f"answers={file}"])
    found = json.loads((tmp_path / "s_answers.json").read_text())
    assert (found["answers"], found["participants"]) == (12, 2)
    shares = {(row["first"], row["second"]): row["share"] for row in found["preferred"]}
    assert shares == {("other", "right"): 0.0, ("right", "wrong"): 1.0}  # nothing tells the two others apart
    assert found["strengths"]["right"]["probability"] > 0.8
    with pytest.raises(SampleError, match=r"row 1 of .* is no answer"):
        study.main([f"out={tmp_path / 's.html'}", f"answers={file},{file}"])
    file.write_text(json.dumps({**rows[0], "chosen": "method"}) + "\n")
    with pytest.raises(SampleError, match="is no answer"):
        study.main([f"out={tmp_path / 's.html'}", f"answers={file}"])


def test_what_cannot_be_asked_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="2 or more predictions"):
        study.main([words[0], words[1].split(",")[0]])
    with pytest.raises(ConfigError, match="a name of its own"):
        study.main([*words, "names=a,a,b"])


@pytest.mark.skipif(
    shutil.which("node") is None, reason="node, which runs the page's script, is not installed"
)
def test_the_script_asks_everything_once_and_notes_who_was_shown_and_chosen() -> None:
    """The page's own script in node, with the few things of a browser that it uses."""
    script = (Path(study.study_page.__code__.co_filename).parents[1] / "assets/user_study.js").read_text()
    browser = """
    const data = {id: "s", items: [0, 1, 2].map(n => ({id: "i" + n, text: "t", picture: null,
      choices: ["a", "b"].map(k => ({key: k + n, picture: "p"}))}))};
    const node = () => ({style: {}, append() {}, replaceChildren() {}, focus() {}, click() {}});
    const nodes = {data: {textContent: JSON.stringify(data)}};
    const keys = [], kept = {};
    const document = {getElementById: id => nodes[id] ??= node(), querySelector: node, createElement: node,
      addEventListener: (_, listener) => keys.push(listener)};
    const localStorage = {getItem: k => kept[k] ?? null, setItem: (k, v) => { kept[k] = v; }};
    const press = key => keys[0]({key, preventDefault() {}});
    """
    presses = """
    press("3"); press("1"); press("2"); press("Backspace"); press("2"); press("1"); press("1");
    console.log(kept["study s"]);
    """
    done = subprocess.run(
        ["node", "-e", browser + script + presses], capture_output=True, text=True, check=True
    )
    state = json.loads(done.stdout)
    answers = state["answers"]
    assert sorted(answer["item"] for answer in answers) == ["i0", "i1", "i2"]
    sides = [answer["shown"].index(answer["chosen"]) for answer in answers]
    assert sides == [0, 1, 0] and all(
        set(a["shown"]) == {f"a{a['item'][1]}", f"b{a['item'][1]}"} for a in answers
    )
    assert len({answer["participant"] for answer in answers}) == 1 and answers[0]["seconds"] >= 0
