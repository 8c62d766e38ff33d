"""The main table of the evaluation report: errors, expression and identity, beside yardsticks and targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facegpt.evaluation.report_page import number, table

NAMES = {
    "model": "model",
    "mean_face": "mean face",
    "mean_face_best_place": "mean face, best place",
    "mean_face_training": "mean of training faces",
    "linear_readout": "linear read-out",
    "nearest_training_face": "nearest training face",
    "fit": "fit by optimisation",
}
ERRORS = {
    "landmark_error_px": ("landmark error, px at 224", 2, "linear read-out's", "at most 0.17"),
    "photometric_error": ("photometric error, RGB in [0,1]", 3, "", "at most 0.33"),
}
# Row of `facegpt.evaluation.parameter_agreement` -> what it is called, and what it should reach.
IN_MAIN_TABLE = ("expression", "shape_first_20", "albedo_first_5")
AGREEMENT = {
    "expression": ("expression", 0.6),
    "shape_first_20": ("shape, first 20", 0.4),
    "albedo_first_5": ("albedo, first 5", 0.6),
    "pitch": ("pitch", 0.9),
    "yaw": ("yaw", 0.9),
    "roll": ("roll", 0.9),
    "jaw": ("jaw", 0.9),
    "camera": ("camera", 0.85),
    "lighting": ("lighting", 0.6),
}
IDENTITY_TARGET, MATCHING_TARGET = 10, 5  # times chance


def main_table(values: dict[str, Any]) -> str:
    """Errors, expression and identity of the model and its yardsticks, with what should be reached.

    values: a result of `eval/reconstruct.py`; rows and columns that it lacks are left out.
    """
    names = [name for name in NAMES if name in values["landmark_error_px"]]
    rows = []
    for metric, (title, digits, better, share_target) in ERRORS.items():
        found = values[metric]
        cells = [number(found[name], digits, found["standard_error"].get(name)) for name in names]
        rows.append([title, *cells, better if "linear_readout" in names else ""])
        shares = values.get("of_mean_face", {}).get(metric)
        if shares:
            rows.append(
                ["… of the mean face's", *(number(shares[n]["share"], 2) for n in names), share_target]
            )
    agreed = values.get("agreement", {})
    for row in (row for row in IN_MAIN_TABLE if row in agreed.get("model", {})):
        title, target = AGREEMENT[row]
        cells = [_correlation(agreed.get(name, {}).get(row)) for name in names]
        rows.append([f"{title}: correlation", *cells, f"at least {target:g}"])
    identity = values.get("identity_rank_1", {})
    if identity:
        one = identity["model"]
        cells = [_share(identity[name]) if name in identity else number(None) for name in names]
        wanted = f"at least {100 * IDENTITY_TARGET * one['chance']:.0f} %"
        title = f"identity: the nearest of {one['candidates']}, chance {100 * one['chance']:.1f} %"
        rows.append([title, *cells, wanted])
    return (
        f"<p>Photograph to face, {values['n']} faces. Errors: smaller is better; all below them: "
        "larger. Correlation is with the true parameters; a mean face has none.</p>"
        + table(["", *(NAMES[name] for name in names), "target"], rows)
    )


def agreement_table(values: dict[str, Any]) -> str:
    """Correlation and slope of every parameter group; empty where the truth is not known."""
    agreed = values.get("agreement", {})
    names = [name for name in NAMES if name in agreed]
    if not names:
        return ""
    rows = []
    for row in (row for row in AGREEMENT if row in agreed["model"]):
        title, target = AGREEMENT[row]
        count = agreed["model"][row]["components"]
        cells = [
            cell
            for name in names
            for cell in (_correlation(agreed[name].get(row)), number(agreed[name][row]["slope"], 2))
        ]
        rows.append([title if count == 1 else f"{title} ({count})", *cells, f"at least {target:g}"])
    header = [
        "",
        *(f"{NAMES[name]}{what}" for name in names for what in (": correlation", ": slope")),
        "target",
    ]
    return (
        "<p>Does each group of parameters follow the true one? The slope is the share of a true deviation "
        "from the mean that survives; in brackets the number of components.</p>" + table(header, rows)
    )


_FOLLOWS = ("correlation", "slope")
GROUPS = {
    "yaw_degrees": "head turned, degrees",
    "light_from_a_side": "light, brighter over darker side",
    "skin_tone": "skin",
}
ALIGNMENTS = {"not_aligned": "posed", "aligned": "posed, aligned", "identity": "shape alone, aligned"}


def vertex_table(values: dict[str, Any]) -> str:
    """Vertex error in mm by alignment and region; empty where the truth is not known."""
    found = values.get("vertex_error_mm", {})
    if not found:
        return ""
    names = [name for name in NAMES if name in next(iter(found["aligned"].values()))]
    rows = [
        [f"{title}: {region.replace('_', ' ')}", *(_mean(row[name]) for name in names)]
        for alignment, title in ALIGNMENTS.items()
        for region, row in found[alignment].items()
    ]
    return (
        f"<p>Distance of matching vertices to the true ones in mm, {values['n']} faces; smaller is better. "
        "Aligned: by a rigid motion of the face region.</p>" + table(["", *(NAMES[n] for n in names)], rows)
    )


def component_table(values: dict[str, Any]) -> str:
    """Correlation and slope of every single parameter, folded away; empty where the truth is not known."""
    agreed = values.get("agreement_by_component", {})
    names = [name for name in NAMES if name in agreed]
    if not names:
        return ""
    rows = [
        [component, *(number(agreed[name][component][key], 2) for name in names for key in _FOLLOWS)]
        for component in agreed[names[0]]
    ]
    header = ["", *(f"{NAMES[name]}: {key}" for name in names for key in _FOLLOWS)]
    return f"<details><summary>Every parameter by itself</summary>{table(header, rows)}</details>"


def group_table(values: dict[str, Any]) -> str:
    """Landmark error by pose, light and skin; empty where the truth is not known."""
    rows = []
    names = [name for name in NAMES if name in values["landmark_error_px"]]
    for kind, labels in values.get("by_group", {}).items():
        for label, found in labels.items():
            title = f"{GROUPS.get(kind, kind)}: {label} ({found['n']})"
            rows.append(_error_row(title, found["landmark_error_px"], names, 2))
    if not rows:
        return ""
    text = "<p>Landmark error by pose, light and skin; in brackets the number of faces.</p>"
    return text + table(["", *(NAMES[name] for name in names)], rows)


def fit_table(values: dict[str, Any]) -> str:
    """The fits by optimisation beside the others, on the faces that were fitted; empty where none was."""
    found = values.get("fit")
    if not found:
        return ""
    names = [name for name in NAMES if name in found["landmark_error_px"]]
    rows = [_error_row(ERRORS[m][0], found[m], names, ERRORS[m][1]) for m in ERRORS]
    for alignment, regions in found.get("vertex_error_mm", {}).items():
        region, row = next(iter(regions.items()))
        title = f"vertices of the {region}, mm, {ALIGNMENTS[alignment]}"
        rows.append([title, *(_mean(row[name]) for name in names)])
    return (
        f"<p>Beside fits by optimisation, which are given the landmarks: the first {found['n']} faces.</p>"
        + table(["", *(NAMES[name] for name in names)], rows)
    )


def matching_table(values: dict[str, Any]) -> str:
    """Matching among sixteen by aspect; values: a result of `eval/text_to_face.py`."""
    tables = {"both": values["matching_16"], **values["by_aspect"]}
    titles = {"both": "expression and pose", "expression": "expression and jaw alone", "pose": "pose alone"}
    drawn = values.get("matching_draws", {})
    counted = any("ngram_ridge" in table for table in drawn.values())
    rows = []
    for aspect, found in tables.items():
        cells = [titles.get(aspect, aspect), _percent(found, "model")]
        if drawn:
            cells.append(_times(drawn[aspect]["model"]))
        if counted:
            cells.append(_share(drawn[aspect]["ngram_ridge"]))
        cells += [_percent(found, "shuffled_text"), f"{100 * found['chance']:.4g} %"]
        cells.append(f"{MATCHING_TARGET} times chance" if aspect == "expression" else "")
        rows.append(cells)
    header = ["nearest of 16 by", "model"]
    header += ["times chance, 95 %"] if drawn else []
    header += ["n-gram ridge"] if counted else []
    return (
        f"<p>Description to face, {values['n']} descriptions: how often the generated face is nearest to "
        "its own truth among sixteen; larger is better.</p>"
        + table([*header, "text of another face", "chance", "target"], rows)
    )


def _error_row(name: str, values: dict[str, Any], names: Sequence[str], digits: int) -> list[str]:
    """A row of a table: what it says, then the mean of each of `names` with its standard error."""
    return [name, *(number(values[n], digits, values["standard_error"].get(n)) for n in names)]


def _mean(row: dict[str, Any]) -> str:
    """A mean, with a standard error such as its 95 % interval has."""
    low, high = row["interval_95"]
    return number(row["mean"], 2, (high - low) / 3.92)


def _correlation(row: dict[str, Any] | None) -> str:
    """A correlation, with a standard error such as its 95 % interval has."""
    if row is None or row["correlation"] is None:
        return number(None)
    low, high = row["correlation_95"]
    return number(row["correlation"], 2, (high - low) / 3.92)


def _share(found: dict[str, Any]) -> str:
    low, high = found["interval_95"]
    return f"{100 * found['share']:.1f} % <small>± {100 * (high - low) / 3.92:.1f}</small>"


def _times(found: dict[str, Any]) -> str:
    low, high = found["factor_interval_95"]
    return f"{found['factor_over_chance']:.1f} <small>{low:.1f} to {high:.1f}</small>"


def _percent(found: dict[str, Any], key: str) -> str:
    return f"{100 * found[key]:.1f} % <small>± {100 * found['standard_error'][key]:.1f}</small>"
