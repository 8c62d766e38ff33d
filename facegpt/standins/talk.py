"""Questions about a photograph and answers in words, from the facts that are known of the rendered face.

They touch the same topics as the requests for faces (facegpt/data/wording/requests.yaml), so that only the
wish for a face tells the two apart. What the picture does not show (hair, clothes, the place) is said to be
unseen. wording/talk.yaml asks what the facts say; wording/photo_talk.yaml asks whatever people ask of a
photograph, and its answers take what they need from the facts and from wording/moods.yaml.
"""

from __future__ import annotations

import random

from facegpt.data.grammar import hasty, read_grammar, tidy
from facegpt.data.templates import HASTY, PRONOUNS
from facegpt.standins.descriptions import WORDS, Feature, bare, features, feeling, join, phrase, plain
from facegpt.standins.language import Facts

TALK = read_grammar("talk")
PHOTO_TALK = read_grammar("photo_talk")
MOODS = read_grammar("moods")
ASKED_FEELINGS = {
    "happy": "happiness", "friendly": "happiness", "good mood": "happiness", "sad": "sadness",
    "upset": "sadness",
    "angry": "anger", "afraid": "fear", "scared": "fear", "surprised": "surprise", "disgusted": "disgust",
    "calm": "neutral",
}  # fmt: skip
UNSEEN = {"hair": "no_hair", "clothes": "no_clothes", "place": "no_place", "other": "no_answer"}
TOPICS = [
    "feeling", "feeling", "expression", "expression", "smiling", "brows", "eyes", "mouth", "direction",
    "direction",
    "tilt", "skin", "beard", "shape", "light", "person", "person", "hair", "clothes", "place", "other",
]  # fmt: skip
PHOTO_TOPICS = [rule for rule in PHOTO_TALK.rules if f"{rule}_answer" in PHOTO_TALK.rules]


def talk_about(facts: Facts, rng: random.Random, count: int) -> list[tuple[str, str]]:
    """`count` (question, answer) pairs about one face's photograph, on different topics while there are.

    Half of them are of TOPICS and half of PHOTO_TOPICS, in turns.
    """
    groups = [list(dict.fromkeys(rng.sample(group, len(group)))) for group in (TOPICS, PHOTO_TOPICS)]
    rng.shuffle(groups)
    topics = [groups[n % 2][n // 2 % len(groups[n % 2])] for n in range(count)]
    return [_pair(topic, facts, rng) for topic in topics]


def _pair(topic: str, facts: Facts, rng: random.Random) -> tuple[str, str]:
    person = rng.choice(PRONOUNS[:2])
    if topic in PHOTO_TALK.rules:
        question = PHOTO_TALK.say(rng, topic, **person)
        answer = PHOTO_TALK.say(rng, f"{topic}_answer", **_known(facts, person, rng))
        return hasty(question) if rng.random() < HASTY else question, answer
    question = TALK.say(rng, topic, **person)
    if topic in UNSEEN:
        answer = TALK.say(rng, UNSEEN[topic], **person)
    else:
        answer = _answer(topic, question.lower(), facts, person, rng)
    return hasty(question) if rng.random() < HASTY else question, answer


def _known(facts: Facts, person: dict[str, str], rng: random.Random) -> dict[str, str]:
    """The slots of photo_talk.yaml: pronouns, the facts in words, and what goes with the mood."""
    told: dict[str, list[Feature]] = {}
    for feature in features(facts):
        told.setdefault(feature.aspect, []).append(feature)
    moves, pose, (light, tint) = told["expression"], told["pose"], told["light"]

    def nouns(chosen: list[Feature]) -> list[str]:
        return [phrase(feature, "n", person, rng) for feature in chosen]

    mood = feeling(facts) or "mixed"
    words = MOODS if mood == "mixed" else WORDS
    movements, turns = nouns(moves[: rng.randint(1, 2)]), nouns(pose[:1])
    goes_with_it = {
        rule.removeprefix(f"{mood}_"): MOODS.raw(rng, rule, **person)
        for rule in MOODS.rules
        if rule.startswith(f"{mood}_")
    }
    return {
        **goes_with_it,
        **person,
        "feel": words.raw(rng, f"{mood}_is", **person),
        "adj": words.raw(rng, f"{mood}_a"),
        "look": words.raw(rng, f"{mood}_n"),
        "moves": phrase(moves[0], "is", person, rng),
        "movement": join(movements, rng),
        "act": phrase(moves[0], "do", person | {"she": "you", "hers": "your"}, rng),
        "poses": phrase(pose[0], "is", person, rng),
        "pose": join(turns, rng),
        "lit": phrase(light, "is", person, rng),
        "light": phrase(light, "n", person, rng),
        "tint": phrase(tint, "n", person, rng),
        "colors": join(nouns(told["color"][:2]), rng),
        "shape": join(nouns(told.get("shape", [])[:2]), rng) or PHOTO_TALK.raw(rng, "shapeless"),
        "notes": ", ".join(bare(noun) for noun in movements + turns),
    }


def _answer(topic: str, question: str, facts: Facts, person: dict[str, str], rng: random.Random) -> str:
    """What the facts say to a question; yes or no first where it was asked so."""
    known = features(facts)
    felt = feeling(facts)
    if topic == "feeling":
        asked = next((name for word, name in ASKED_FEELINGS.items() if word in question), None)
        if felt is None:
            return TALK.say(rng, "unclear")
        said = plain(f"{felt}_is", person, rng)
        return TALK.say(rng, "felt" if asked is None else "agreed" if asked == felt else "denied", named=said)
    if topic == "person":
        lines = [TALK.say(rng, "felt", named=plain(f"{felt}_is", person, rng))] if felt else []
        chosen = [f for f in known if f.aspect != "light" or rng.random() < 0.3]
        return " ".join([*lines, _tell(chosen, person, rng, rng.randint(2, 4))])
    if topic in ("smiling", "brows", "eyes", "mouth", "beard", "tilt"):
        return _yes_or_no(topic, question, facts, known, person, rng)
    aspect = {"direction": "pose", "skin": "color"}.get(topic, topic)
    return _tell([f for f in known if f.aspect == aspect], person, rng, 3)


def _yes_or_no(
    topic: str, question: str, facts: Facts, known: list[Feature], person: dict[str, str], rng: random.Random
) -> str:
    keys = {
        "smiling": ("smile",),
        "brows": ("brows_up", "inner_brows"),
        "eyes": ("closed",),
        "mouth": ("open",),
        "beard": ("beard_high", "moustache_high"),
        "tilt": ("roll",),
    }[topic]
    found = next((feature for feature in known if feature.key in keys), None)
    otherwise = {"eyes": "the eyes are open", "mouth": "the mouth is closed", "tilt": "the head is upright"}
    yes = found is not None
    if any(word in question for word in ("open", "can we see", "straight", "upright", "shaved")):
        yes = not yes if topic in ("eyes", "tilt", "beard") else yes
    if topic == "mouth" and any(word in question for word in ("closed", "shut")):
        yes = not yes
    if found is not None:
        kind = "is" if found.can("is") else "n"
        named = phrase(found, kind, person, rng)
        named = named if kind == "is" else f"{person['she']} has {named}"
    elif topic in otherwise:
        named = otherwise[topic]
    else:
        named = {"smiling": "the mouth does not smile", "brows": "the brows are not raised"}.get(
            topic, "no beard can be seen"
        )
    if "how far" in question or "open or closed" in question:
        return tidy(named + ".")
    return TALK.say(rng, "agreed" if yes else "denied", named=named)


def _tell(chosen: list[Feature], person: dict[str, str], rng: random.Random, most: int) -> str:
    """Up to `most` of the features in some sentences; those without a clause are what the person has."""
    picked = chosen[:most] or [Feature("relaxed", "expression")]
    clauses = [phrase(f, "is", person, rng) for f in picked if f.can("is")]
    nouns = [phrase(f, "n", person, rng) for f in picked if not f.can("is")]
    if nouns:
        clauses.append(f"{person['she']} has {join(nouns, rng)}")
    return tidy(" ".join(f"{clause}." for clause in ([join(clauses, rng)] if len(clauses) < 3 else clauses)))
