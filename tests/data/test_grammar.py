"""The grammar of wordings against renderings that are written out here."""

from __future__ import annotations

import random

import pytest

from facegpt.data.grammar import Grammar, hasty, parse_line, read_grammar, tidy
from facegpt.errors import ConfigError


def grammar(**rules: str) -> Grammar:
    return Grammar({name: [parse_line(line) for line in text.splitlines()] for name, text in rules.items()})


def test_all_and_only_the_written_alternatives_are_drawn():
    tale = grammar(ask="[please ](show|draw[ me]) {face}\nface?", face="her face\na {mood} face")
    said = {tale.say(random.Random(seed), "ask", mood="happy") for seed in range(400)}
    verbs = ["Show", "Draw", "Draw me", "Please show", "Please draw", "Please draw me"]
    assert said == {f"{v} {f}" for v in verbs for f in ("her face", "a happy face")} | {"Face?"}
    assert tale.count("ask") == len(said)
    assert set(tale.wordings("ask", 100, mood="happy")) == said


def test_what_the_caller_puts_in_is_never_read_as_grammar():
    assert grammar(a="say {x}").say(random.Random(0), "a", x="(b|c) {a} [d]") == "Say (b|c) {a} [d]"


def test_articles_and_capitals_are_put_right():
    assert tidy("a angry man. he has  a eye and a one-sided O. so it is") == (
        "An angry man. He has an eye and a one-sided O. So it is"
    )
    assert hasty("Who's that? It's Ann.") == "whos that? its ann"


@pytest.mark.parametrize("line", ["[a", "a]", "(a|b", "a)", "[(a]", "(a]", "{", "{a b}", "a|b"])
def test_brackets_that_do_not_match_are_named(line: str):
    with pytest.raises(ConfigError, match="brackets"):
        parse_line(line)


def test_circles_and_unknown_names_are_named():
    with pytest.raises(ConfigError, match="names itself"):
        grammar(a="{a}").say(random.Random(0), "a")
    with pytest.raises(ConfigError, match="names itself"):
        grammar(a="{b}", b="{a}").count("a")
    with pytest.raises(ConfigError, match="is not a rule"):
        grammar(a="{b}").say(random.Random(0), "a")


@pytest.mark.parametrize("name", ["requests", "descriptions", "talk", "photo_talk", "moods", "questions"])
def test_the_shipped_grammars_are_read(name: str):
    assert len(read_grammar(name).rules) > 20
