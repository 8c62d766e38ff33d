"""A rendered face in a person's words: whole texts in many wordings, from the facts that are known of it.

The words are in facegpt/data/wording/descriptions.yaml. Sides are the person's own, as in
facegpt/standins/language.py. Feelings are said where the movements show one clearly; what happened to the
person never is: no event can be seen in a face.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from facegpt.data.grammar import read_grammar, tidy, with_articles
from facegpt.data.templates import PRONOUNS
from facegpt.standins.language import Facts
from facegpt.standins.synthetic import ARCHETYPES, SHOWN_BY

WORDS = read_grammar("descriptions")
SEEN, CLEAR, STRONG = 0.18, 0.4, 0.75  # of a movement's coefficient

# feature of the grammar -> components, averaged
MOVEMENTS = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "brows_up": ("browOuterUpLeft", "browOuterUpRight"),
    "inner_brows": ("browInnerUp",),
    "brows_down": ("browDownLeft", "browDownRight"),
    "sneer": ("noseSneerLeft", "noseSneerRight"),
    "pucker": ("mouthPucker",),
    "funnel": ("mouthFunnel",),
    "puff": ("cheekPuff",),
    "cheeks": ("cheekSquintLeft", "cheekSquintRight"),
    "stretch": ("mouthStretchLeft", "mouthStretchRight"),
    "press": ("mouthPressLeft", "mouthPressRight"),
    "upper_lip": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "lower_lip": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "wide": ("eyeWideLeft", "eyeWideRight"),
    "squint": ("eyeSquintLeft", "eyeSquintRight"),
    "mouth_side left": ("mouthLeft",),
    "mouth_side right": ("mouthRight",),
    "jaw_side left": ("jawLeft",),
    "jaw_side right": ("jawRight",),
    "jaw_forward": ("jawForward",),
    "chin_raised": ("mouthShrugLower",),
    "lip_shrug": ("mouthShrugUpper",),
    "lower_roll": ("mouthRollLower",),
    "upper_roll": ("mouthRollUpper",),
    "dimple": ("mouthDimpleLeft", "mouthDimpleRight"),
    "lips_closed": ("mouthClose",),
    "gaze_up": ("eyeLookUpLeft", "eyeLookUpRight"),
    "gaze_down": ("eyeLookDownLeft", "eyeLookDownRight"),
    "gaze_in": ("eyeLookInLeft", "eyeLookInRight"),
    "gaze_out": ("eyeLookOutLeft", "eyeLookOutRight"),
}
SKIN_TONES = 5


@dataclass
class Feature:
    """One thing that can be said: the grammar's KEY, the aspect it belongs to, and the slots of its rules.

    A slot that names a rule (weak_how) is drawn from it.
    """

    key: str
    aspect: str
    slots: dict[str, str] = field(default_factory=dict)
    only: str = ""  # the side that does it alone

    def can(self, kind: str) -> bool:
        """Whether the grammar has words of this kind: "is", "n" or "do"."""
        return f"{self.key}_{kind}" in WORDS.rules


def features(facts: Facts) -> list[Feature]:
    """All that can be said of a face, the most striking first within each aspect."""
    return [*_expression(facts), *_pose(facts), *_shape(facts), *_colors(facts), *_light(facts)]


def feeling(facts: Facts) -> str | None:
    """happiness, sadness, anger, surprise, fear, disgust, sleepy or neutral; None where none is clear."""
    shown = {name: max(_shown(facts, kind) for kind in kinds) for name, kinds in SHOWN_BY.items()}
    first, second = sorted(shown, key=lambda name: -shown[name])[:2]
    if shown[first] >= 0.3 and shown[second] < 0.7 * shown[first]:
        return first
    if facts.components.get("eyeBlinkLeft", 0) > 0.7 and facts.components.get("eyeBlinkRight", 0) > 0.7:
        return "sleepy" if shown[first] < SEEN else None
    still = max((abs(value) for value in facts.components.values()), default=0.0) < SEEN and facts.jaw < 4
    return "neutral" if still else None


def looks(facts: Facts, rng: random.Random, count: int = 1) -> list[str]:
    """At most `count` different adjectives for the feeling of a face, none where no feeling is clear."""
    felt = feeling(facts)
    return list(dict.fromkeys(WORDS.raw(rng, f"{felt}_a") for _ in range(count))) if felt else []


def describe_freely(facts: Facts, rng: random.Random, count: int = 1) -> list[str]:
    """`count` whole texts about one face, of one to all aspects; the forms are those of `text_form`."""
    known, felt = features(facts), feeling(facts)
    return [_text(known, felt, facts, rng) for _ in range(count)]


def _text(known: list[Feature], felt: str | None, facts: Facts, rng: random.Random) -> str:
    chosen, named = _choose(known, felt, rng)
    beard = facts.colors.get("beard", 0.0) > 0.8 or facts.colors.get("moustache", 0.0) > 0.8
    who = "man" if beard else rng.choice(["woman", "man", "person"])
    person = PRONOUNS[{"woman": 0, "man": 1}.get(who, rng.randrange(2))]
    form = rng.random()
    doable = [feature for feature in chosen if feature.can("do")]
    if form < 0.12 and doable and not named:
        acts = [phrase(feature, "do", person, rng) for feature in doable[:3]]
        return "to " + join(acts, rng)
    if form < 0.38:
        return _noun(chosen, named, who, person, rng)
    if form < 0.52:
        return _notes(chosen, named, person, rng)
    return _sentences(chosen, named, who, person, rng)


def _choose(known: list[Feature], felt: str | None, rng: random.Random) -> tuple[list[Feature], str | None]:
    """Which features a text tells, most of them the striking ones, and the feeling if it says one."""
    by_aspect = {name: [f for f in known if f.aspect == name] for name in ("expression", "pose")}
    rest = [f for f in known if f.aspect not in by_aspect]
    kind = rng.random()
    if felt and kind < 0.2:
        return [], felt
    movements = by_aspect["expression"][: rng.choice([1, 2, 3, 4, 6])]
    if kind < 0.6:
        chosen = movements + (by_aspect["pose"] if rng.random() < 0.25 else [])
    elif kind < 0.75:
        chosen = movements + by_aspect["pose"] + rng.sample(rest, min(len(rest), rng.randint(1, 4)))
    elif kind < 0.9:
        chosen = movements + by_aspect["pose"] + rest
    else:
        chosen = rng.sample(known, min(len(known), rng.randint(1, 5)))
    if rng.random() < 0.4:
        rng.shuffle(chosen)
    says = felt is not None and rng.random() < 0.5 and any(f.aspect == "expression" for f in chosen)
    return chosen, felt if says else None


def _noun(
    chosen: list[Feature], felt: str | None, who: str, person: dict[str, str], rng: random.Random
) -> str:
    """A person in a noun phrase: "an angry woman with knitted brows and a broad jaw"."""
    noun = WORDS.raw(rng, who)
    adjective = WORDS.raw(rng, f"{felt}_a") if felt else ""
    lead = f"{noun} {adjective}" if noun == "somebody" else f"a {adjective} {noun}"
    told = [phrase(feature, "n", person, rng) for feature in chosen if feature.can("n")][:8]
    return with_articles(" ".join((lead + (" with " + join(told, rng) if told else "")).split()))


def _notes(chosen: list[Feature], felt: str | None, person: dict[str, str], rng: random.Random) -> str:
    """Features alone: "angry, knitted brows, head tilted to the left"."""
    told = [WORDS.raw(rng, f"{felt}_a")] if felt else []
    told += [bare(phrase(feature, "n", person, rng)) for feature in chosen if feature.can("n")]
    return rng.choice([", ", ", ", "; "]).join(told) or "face"


def _sentences(
    chosen: list[Feature], felt: str | None, who: str, person: dict[str, str], rng: random.Random
) -> str:
    """Whole sentences of one or two features each."""
    clauses = [WORDS.raw(rng, f"{felt}_is", **person)] if felt else []
    nouns: list[str] = []
    for feature in chosen:
        if feature.can("is") and (feature.aspect == "pose" or rng.random() < 0.75):
            clauses.append(phrase(feature, "is", person, rng))
        elif feature.can("n"):
            nouns.append(phrase(feature, "n", person, rng))
    named = rng.random() < 0.25
    while nouns:
        count = min(len(nouns), rng.choice([1, 2, 3]))
        they, nouns = nouns[:count], nouns[count:]
        subject = person["she"] if clauses or rng.random() < 0.5 else WORDS.raw(rng, f"a_{who}")
        subject = person["she"] if subject in ("she", "he") else subject
        clauses.append(WORDS.raw(rng, "there", who=subject, features=join(they, rng)))
    if felt is not None and rng.random() < 0.3:
        rng.shuffle(clauses)
    said = []
    while clauses:
        count = 2 if len(clauses) > 1 and rng.random() < 0.4 else 1
        said.append(rng.choice([" and ", ", "] if count == 2 else [""]).join(clauses[:count]) + ".")
        clauses = clauses[count:]
    text = tidy(" ".join(said))
    lead = WORDS.raw(rng, f"a_{who}")
    if named and text.startswith(("She ", "He ")) and lead not in ("she", "he"):
        text = tidy(lead + text[text.index(" ") :])
    return text


def phrase(feature: Feature, kind: str, person: dict[str, str], rng: random.Random) -> str:
    """One feature in words of this kind: "is" a clause, "n" a noun phrase, "do" an infinitive without to."""
    slots = {
        key: WORDS.raw(rng, rule) if rule in WORDS.rules else rule for key, rule in feature.slots.items()
    }
    rule = f"{feature.key}_{kind}"
    strength = feature.slots.get("how", "").partition("_")[0]
    special = f"{feature.key}_{strength}_{kind}"
    if special in WORDS.rules and rng.random() < 0.6:
        rule = special
    said = WORDS.raw(rng, rule, **person, **slots)
    return (
        f"{said} {rng.choice(['only on', 'on'])} {person['hers']} {feature.only} side"
        if feature.only
        else said
    )


def plain(rule: str, person: dict[str, str], rng: random.Random) -> str:
    """A rule of the grammar that needs no feature, such as happiness_is."""
    return WORDS.raw(rng, rule, **person)


def _expression(facts: Facts) -> list[Feature]:
    found: list[tuple[float, Feature]] = []
    for name, components in MOVEMENTS.items():
        values = [facts.components[part] for part in components if part in facts.components]
        value = sum(values) / len(values) if values else 0.0
        if value >= SEEN:
            key, _, side = name.partition(" ")
            slots = _sides(side) | _strength(max(values))
            found.append((value, Feature(key, "expression", slots, _only(values))))
    left, right = (facts.components.get(f"eyeBlink{side}", 0.0) for side in ("Left", "Right"))
    if abs(left - right) > 0.5 and max(left, right) > 0.6:
        found.append((1.0, Feature("wink", "expression", _sides("left" if left > right else "right"))))
    elif (left + right) / 2 > 0.3:
        closed = (left + right) / 2
        found.append((closed, Feature("closed" if closed > 0.7 else "half_closed", "expression")))
    if facts.jaw > 4:
        far = "open_weak" if facts.jaw < 8 else "open_middle" if facts.jaw < 15 else "open_strong"
        found.append((facts.jaw / 18, Feature("open", "expression", {"far": far})))
    found.sort(key=lambda item: -item[0])
    return [feature for _, feature in found] or [Feature("relaxed", "expression")]


def _pose(facts: Facts) -> list[Feature]:
    found = []
    if abs(facts.yaw) > 6:
        side = _sides("left" if facts.yaw > 0 else "right")
        found.append((abs(facts.yaw), Feature("yaw", "pose", side | _angle(facts.yaw, 30))))
    if abs(facts.pitch) > 5:
        key = "up" if facts.pitch > 0 else "down"
        found.append((1.5 * abs(facts.pitch), Feature(key, "pose", _angle(facts.pitch, 18))))
    if abs(facts.roll) > 5:
        side = _sides("right" if facts.roll > 0 else "left")
        found.append((1.5 * abs(facts.roll), Feature("roll", "pose", side | _angle(facts.roll, 14))))
    found.sort(key=lambda item: -item[0])
    return [feature for _, feature in found] or [Feature("straight", "pose")]


def _shape(facts: Facts) -> list[Feature]:
    """The up to five strongest deviations that have words; a face near the mean gets none."""
    strong = sorted(facts.identity.items(), key=lambda item: -abs(item[1]))
    keys = [f"{name}_{'high' if value > 0 else 'low'}" for name, value in strong if abs(value) > 0.8]
    return [Feature(key, "shape") for key in keys if f"{key}_n" in WORDS.rules][:5]


def _colors(facts: Facts) -> list[Feature]:
    tone = min(SKIN_TONES - 1, max(0, round(2 + 1.3 * facts.colors.get("melanin", 0.0))))
    strong = sorted(facts.colors.items(), key=lambda item: -abs(item[1]))
    keys = [f"{name}_{'high' if value > 0 else 'low'}" for name, value in strong if abs(value) > 0.8]
    named = [Feature(key, "color") for key in keys if f"{key}_n" in WORDS.rules][:4]
    return [Feature(f"skin_{tone}", "color"), *named]


def _light(facts: Facts) -> list[Feature]:
    x, y, _ = facts.light
    side = ("the left" if x > 0 else "the right") if abs(x) > 0.12 else ""
    height = "above" if y > 0.12 else "below" if y < -0.12 else ""
    where = " and ".join(word for word in (side, height) if word) or "the front"
    strength = "strong_light" if math.hypot(*facts.light) > 0.45 else "soft_light"
    tint = "warm_light" if facts.warmth > 0.08 else "cold_light" if facts.warmth < -0.08 else "white_light"
    words = {"where": where, "strength": strength, "tint": tint}
    return [Feature("light", "light", words), Feature("tint", "light", {"tint": tint})]


def _shown(facts: Facts, archetype: str) -> float:
    """How strongly all movements of an archetype are there: the weakest of its larger shares."""
    parts = ARCHETYPES[archetype][0]
    levels = []
    for stem, share in parts.items():
        sides = [facts.components[n] for n in (stem, f"{stem}Left", f"{stem}Right") if n in facts.components]
        if share >= 0.5 and sides:
            levels.append(sum(sides) / len(sides) / share)
    return min(levels, default=0.0)


def _strength(value: float) -> dict[str, str]:
    name = "strong" if value >= STRONG else "middle" if value >= CLEAR else "weak"
    return {"how": f"{name}_how", "big": f"{name}_big"}


def _angle(degrees: float, far: float) -> dict[str, str]:
    size = abs(degrees) / far
    return {"how": "pose_strong" if size > 0.8 else "pose_middle" if size > 0.45 else "pose_weak"}


def _only(values: list[float]) -> str:
    """The side that moves alone, of (left, right)."""
    if len(values) < 2 or min(values) > 0.4 * max(values):
        return ""
    return "left" if values[0] > values[1] else "right"


def _sides(side: str) -> dict[str, str]:
    return {"side": side, "other": "right" if side == "left" else "left"} if side else {}


def bare(phrase: str) -> str:
    """Without its article."""
    first, _, rest = phrase.partition(" ")
    return rest if first in ("a", "an", "the") and rest else phrase


def join(phrases: list[str], rng: random.Random) -> str:
    """The phrases as a list in words."""
    if len(phrases) < 2:
        return "".join(phrases)
    return ", ".join(phrases[:-1]) + rng.choice([" and ", " and ", ", "]) + phrases[-1]
