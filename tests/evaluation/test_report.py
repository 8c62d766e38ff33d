"""The report: one file that holds everything it shows."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
from evaluation_world import COUNT, SIZE, World
from html_pages import Checker, parse
from PIL import Image
from recipes import load_recipe

from facegpt.errors import ConfigError
from facegpt.evaluation.expression_prototypes import score_feelings
from facegpt.evaluation.published_tables import OwnResults, published_tables
from facegpt.evaluation.report_numbers import agreement_table, main_table, matching_table
from facegpt.evaluation.report_page import Curve, chart, number, page, strip, table

reconstruct = load_recipe("eval/reconstruct.py")
report = load_recipe("eval/report.py")
text_to_face = load_recipe("eval/text_to_face.py")
free_wording = load_recipe("eval/free_wording.py")
language = load_recipe("eval/language.py")


def pictures(checker: Checker) -> list[Image.Image]:
    found = []
    for source in checker.sources:
        assert source.startswith("data:image/jpeg;base64,")  # nothing is loaded from elsewhere
        found.append(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        found[-1].load()
    return found


@pytest.fixture(scope="module")
def results(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    more = [f"size={SIZE}", "questions=3", f"instruct={world.path / 'chat.json'}"]
    training = f"training_data={world.path / 'faces'}"
    reconstruct.main(world.words("silent", folder / "reconstruct.json", training, *more))
    text_to_face.main(world.words("silent", folder / "text_to_face.json", training))
    rows = [{"kind": "train", "step": n, "loss/text": 1 / n, "loss/face": 10 / n} for n in (1, 2, 3)]
    rows += [{"kind": "validation", "step": 3, "image/landmark_error": 12.5, "chat/false_positive_rate": 0.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def words(world: World, results: Path, out: Path) -> list[str]:
    return [
        *(f"{name}={results / name}.json" for name in ("reconstruct", "text_to_face")),
        *(f"run={results}", f"head={world.path / 'head.npz'}", f"out={out}", "faces=3", f"size={SIZE}"),
    ]


def test_the_report_holds_every_number_and_picture(world: World, results: Path, tmp_path: Path) -> None:
    report.main(words(world, results, tmp_path / "report.html"))
    checker = parse((tmp_path / "report.html").read_text(encoding="utf-8"))
    shown = pictures(checker)
    assert len(shown) == (3 + 2) * 5 + 3 * 4  # the first three and the worst two; three descriptions
    assert all(picture.size == (SIZE, SIZE) for picture in shown)
    values = json.loads((results / "reconstruct.json").read_text())
    assert f"{values['landmark_error_px']['model']:.2f}" in checker.text
    assert f"{values['photometric_error']['mean_face']:.3f}" in checker.text
    matching = json.loads((results / "text_to_face.json").read_text())["matching_16"]
    assert f"{100 * matching['model']:.1f} %" in checker.text and "6.25 %" in checker.text
    assert "expression: correlation" in checker.text and "at least 0.6" in checker.text
    assert "linear read-out" in checker.text and "mean face, best place" in checker.text
    assert f"nearest of {COUNT}, chance 5.0 %" in checker.text and "at least 50 %" in checker.text
    assert "n-gram ridge" in checker.text and "5 times chance" in checker.text
    assert "this is the mean face" in checker.text  # nothing was emitted, and the report says so
    assert f"{COUNT} faces" in checker.text and values["head_id"] in checker.text
    assert "step_000007" in checker.text and "text loss" in checker.text


def test_a_report_of_one_result_leaves_the_other_out(world: World, results: Path, tmp_path: Path) -> None:
    report.main([*words(world, results, tmp_path / "r.html"), "text_to_face=", "run="])
    text = parse((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "Photograph to face" in text and "Description to face" not in text and "Training" not in text


def test_free_wording_and_language_are_told_where_they_ran(
    world: World, results: Path, tmp_path: Path
) -> None:
    free_wording.main(world.words("speaks", tmp_path / "f.json", "n=2", "split=dev"))
    asked = [word for word in world.words("speaks", tmp_path / "l.json", "n=2") if "data=" not in word]
    language.main(asked)
    found = json.loads((tmp_path / "f.json").read_text())
    found["feelings"] = {"speculative": score_feelings(["fear", None], [["fear"], ["anger"]]).as_json()}
    found["replies"][0] |= {"reply": "<script>", "shows": "fear"}
    (tmp_path / "f.json").write_text(json.dumps(found))
    more = [f"free_wording={tmp_path / 'f.json'}", f"language={tmp_path / 'l.json'}"]
    report.main([*words(world, results, tmp_path / "r.html"), "faces=0", *more])
    text = parse((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert all(row["text"] in text for row in found["replies"])
    assert (
        "50.0 %" in text
        and "100.0 %" in text
        and "14.3 %" in text
        and "<script> shows fear" in " ".join(text.split())
    )
    kept = json.loads((tmp_path / "l.json").read_text())
    assert (
        f"{kept['perplexity']['trained']:.3f}" in text and f"{100 * kept['relative_change']:+.1f} %" in text
    )


def test_results_without_truth_or_yardsticks_are_shown_too(results: Path) -> None:
    old = json.loads((results / "reconstruct.json").read_text())
    for key in ("agreement", "identity_rank_1", "of_mean_face", "by_group", "vertex_error_mm"):
        del old[key]
    described = json.loads((results / "text_to_face.json").read_text())
    del described["matching_draws"]
    assert "target" in main_table(old) and agreement_table(old) == ""
    assert "n-gram" not in matching_table(described) and "6.25 %" in matching_table(described)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("reconstruct=nowhere.json", "nowhere.json is missing"),
        ("free_wording=nowhere.json", "nowhere.json cannot be read"),
        ("language={results}/reconstruct.json", "is not a result"),
        ("run=nowhere", "nowhere has no metrics.jsonl"),
        ("reconstruct={results}/metrics.jsonl", "is not a result"),
    ],
)
def test_missing_parts_are_named(world: World, results: Path, tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        report.main([*words(world, results, tmp_path / "r.html"), change.format(results=results)])
    assert not (tmp_path / "r.html").exists()


def test_the_published_tables_have_our_numbers_beside_theirs_and_a_dash_where_there_is_none() -> None:
    measured = {"photometric_error": {"model": 0.123}, "landmark_error_px": {"model": 4.56}}
    surface = {"model": {"chamfer_mm": {"mean": 8.9}, "complete_rate": {"mean": 77.7}}}
    own = OwnResults(
        measured,
        {"surface": surface, "identity": {"model": {"recognition_rate": 55.5}}},
        {"judge": "ruler", "scores": {"all": {"relative": 66.6}}},
        {"strengths": {"a": {"probability": 0.444}}},
    )
    text = " ".join(parse(published_tables(own)).text.split())
    assert "ours: other data, other head : model 0.123 4.6" in text
    assert ": model 8.9 77.7 55.5" in text and "judge ruler 66.6" in text and ": a 44.4" in text
    assert "FaceGPT 0.103 3.0" in text and "cannot be compared" in text
    empty = " ".join(parse(published_tables(OwnResults())).text.split())
    assert empty.count(": model –") == 6


def test_an_empty_report_is_refused(world: World, results: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to report"):
        report.main([*words(world, results, tmp_path / "r.html"), "reconstruct=", "text_to_face="])


def test_what_models_and_users_write_cannot_break_the_page() -> None:
    nasty = '<script>alert("1")</script> & </figure>'
    body = strip([(Image.new("RGB", (4, 4)), nasty)]) + chart(nasty, [Curve(nasty, [(0, 1), (1, 2)])])
    text = page(nasty, body + table([nasty], [["<b>1</b>"]]))
    assert (
        "<script" not in text and parse(text).text.count("alert") == 5
    )  # title, caption, chart, curve, header


def test_a_chart_spans_its_points_and_drops_what_cannot_be_drawn() -> None:
    drawn = chart("c", [Curve("a", [(0, 1.0), (50, float("nan")), (100, 3.0)])])
    points = [
        tuple(float(v) for v in pair.split(",")) for pair in re.findall(r'points="([^"]+)"', drawn)[0].split()
    ]
    assert points == [(46.0, 168.0), (352.0, 10.0)]  # ticks 1 to 3: lower left and upper right corner
    assert "nothing was logged" in chart("c", [Curve("a", [])])
    assert "polyline" in chart("c", [Curve("a", [(1, 5.0)])])  # one point, no division by zero


def test_a_logarithmic_chart_places_decades_evenly() -> None:
    drawn = chart("c", [Curve("a", [(0, 0.1), (1, 1.0), (2, 10.0), (3, -1.0)])], logarithmic=True)
    heights = [float(pair.split(",")[1]) for pair in re.findall(r'points="([^"]+)"', drawn)[0].split()]
    assert len(heights) == 3 and heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)
    assert ">10<" in drawn and ">0.1<" in drawn


def test_numbers_show_their_standard_error_and_nothing_where_there_is_none() -> None:
    assert number(1.23456, 2, 0.1) == "1.23 <small>± 0.10</small>"
    assert number(1.23456, 2) == "1.23" and number(None) == "–"
