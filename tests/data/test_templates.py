"""Wording varies, holds its placeholders, and follows from the generator alone."""

from __future__ import annotations

import random

from facegpt.data import templates
from facegpt.data.templates import combined_request, face_request


def test_there_is_variety_and_nothing_twice():
    for prompts in (templates.IMAGE_PROMPTS, templates.TEXT_PROMPTS):
        assert len(set(prompts)) == len(prompts) >= 12
    assert len(set(templates.ANSWERS)) == len(templates.ANSWERS) >= 8
    assert set(templates.ASPECT_QUESTIONS) == {"shape", "expression", "colour", "light", "pose"}
    assert len(set(templates.FACE_QUESTIONS)) == 6


def test_every_answer_has_one_face_in_varied_places():
    answers = [*templates.ANSWERS, *templates.COMBINED_ANSWERS]
    assert {answer.count("<FACE>") for answer in answers} == {1}
    starts = sum(answer.startswith("<FACE>") for answer in answers)
    ends = sum(answer.rstrip(".").endswith("<FACE>") for answer in answers)
    inside = sum(len(answer.split("<FACE>")[1]) > 10 for answer in answers)
    assert starts >= 3 and ends >= 3 and inside >= 3
    assert not any("<" in prompt for prompt in templates.IMAGE_PROMPTS + templates.TEXT_PROMPTS)
    for template in (*templates.TEXT_PROMPTS, *templates.COMBINED_PROMPTS, *templates.COMBINED_ANSWERS):
        assert template.count("{}") == 1


def test_a_description_goes_in_whole_sentences_and_sometimes_incomplete():
    description = {aspect: f"About {aspect} {{}}." for aspect in templates.ASPECT_QUESTIONS}
    orders, counts = set(), set()
    for seed in range(200):
        prompt, answer = face_request(random.Random(seed), description)
        said = [aspect for aspect in description if description[aspect] in prompt]
        orders.add(tuple(sorted(said, key=lambda a: prompt.index(f"About {a}"))))
        counts.add(len(said))
        assert answer in templates.ANSWERS
    assert counts >= {3, 4, 5} and 0 not in counts and len(orders) > 50


def test_requests_follow_from_the_generator():
    assert [face_request(random.Random(5)) for _ in range(3)] == [face_request(random.Random(5))] * 3
    assert len({face_request(random.Random(seed))[0] for seed in range(200)}) == len(templates.IMAGE_PROMPTS)


def test_a_combined_request_holds_question_answer_and_face():
    for seed in range(20):
        prompt, answer = combined_request(random.Random(seed), "Which hat {}?", "A red hat {}.")
        assert "Which hat {}?" in prompt and "A red hat {}." in answer and answer.count("<FACE>") == 1
