"""Wording varies, holds its placeholders, and follows from the generator alone."""

from __future__ import annotations

import random

import numpy as np
from chat_formats import chat_processor

from facegpt.data import templates
from facegpt.data.conversation import encode_conversation
from facegpt.data.templates import (
    REQUESTS,
    combined_request,
    face_request,
    follow_up,
    text_form,
    two_faces_request,
)
from facegpt.sample import Message


def test_every_wording_makes_a_sample_that_can_be_trained_on():
    """Each question and answer goes through the checks and the tokens that training uses."""
    processor = chat_processor("vicuna")
    face = processor.tokenizer.convert_tokens_to_ids("<FACE>")
    wordings = [(f"<image>\n{prompt}", templates.ANSWERS[0]) for prompt in templates.IMAGE_PROMPTS]
    wordings += [
        (prompt.replace("{}", "She smiles."), templates.ANSWERS[0]) for prompt in templates.TEXT_PROMPTS
    ]
    wordings += [("Show it.", answer) for answer in templates.ANSWERS]
    wordings += [combined_request(random.Random(seed), "Why?", "Because.") for seed in range(50)]
    for question, answer in wordings:
        encoded = encode_conversation([Message("user", question), Message("assistant", answer)], processor)
        at = [
            supervised
            for i, supervised in zip(encoded.input_ids, encoded.label_mask, strict=True)
            if i == face
        ]
        assert at == [True], answer
        text = processor.tokenizer.decode(encoded.input_ids)
        assert "{" not in text and ("She smiles." in text) == (question.count("She smiles.") == 1)


def test_no_wording_betrays_the_answer_by_being_in_both_kinds():
    """A question about a picture must not be a request for a face, or the model could not tell them apart."""
    asked = [*templates.ASPECT_QUESTIONS.values(), *templates.FACE_QUESTIONS]
    requests = [*templates.IMAGE_PROMPTS, *templates.TEXT_PROMPTS]
    assert not set(asked) & set(requests)
    assert len(set(asked)) == len(asked) and len(set(requests)) == len(requests)


def test_the_face_stands_at_the_start_inside_and_at_the_end_of_answers():
    """Else its position alone would predict it."""
    drawn = [face_request(random.Random(seed))[1] for seed in range(300)]
    places = [answer.index("<FACE>") / max(1, len(answer.rstrip(".")) - len("<FACE>")) for answer in drawn]
    assert 0.1 < np.mean([place == 0 for place in places]) < 0.6
    assert 0.1 < np.mean([place == 1 for place in places]) < 0.9
    assert 0.05 < np.mean([0 < place < 1 for place in places]) < 0.6


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
    assert len({face_request(random.Random(seed))[0] for seed in range(200)}) > 180


def test_a_combined_request_holds_question_answer_and_face():
    for seed in range(20):
        prompt, answer = combined_request(random.Random(seed), "Which hat {}?", "A red hat {}.")
        assert "Which hat {}?" in prompt and "A red hat {}." in answer and answer.count("<FACE>") == 1


TEXTS = {
    "sentences": "She has a big grin. Her eyes are closed.",
    "noun": "an angry man with knitted brows",
    "notes": "big grin, eyes closed",
    "wish": "to smile and close her eyes",
}


def test_there_are_many_hundred_different_requests_for_every_form_of_words():
    rng = random.Random(0)
    assert len({face_request(rng)[0].lower() for _ in range(2000)}) > 1200
    for form, text in TEXTS.items():
        assert text_form(text) == form
        said = {face_request(rng, text)[0].lower() for _ in range(1500)}
        words = text.removeprefix("to ").rstrip(".").lower()
        assert len(said) >= 600 and all(words in request for request in said), form
        assert len({follow_up(rng, text)[0].lower() for _ in range(500)}) > 50
    assert len(templates.ANSWERS) > 30 and len(templates.IMAGE_PROMPTS) == len(templates.TEXT_PROMPTS) == 400


def test_requests_speak_of_the_person_as_the_description_does():
    for seed in range(300):
        prompt, _ = face_request(random.Random(seed), "He smiles. His eyes are open.")
        assert not {"she", "her", "them", "their", "they"} & set(prompt.lower().replace(".", " ").split())


def test_some_requests_are_typed_in_haste():
    prompts = [face_request(random.Random(seed))[0] for seed in range(400)]
    hasty = np.mean([prompt == prompt.lower() and prompt[-1] not in ".!?" for prompt in prompts])
    assert 0.05 < hasty < 0.3


def test_two_faces_have_two_places_in_the_answer():
    for seed in range(60):
        first, second = ("a glad boy", "a sad girl") if seed % 2 else ("raised brows", "puffed cheeks")
        prompt, answer = two_faces_request(random.Random(seed), first, second)
        assert prompt.lower().index(first) < prompt.lower().index(second) and answer.count("<FACE>") == 2


def test_no_rule_of_the_requests_is_missing_or_in_a_circle():
    slots = dict.fromkeys(["description", "who", "features", "act", "first", "second", "question"], "x")
    slots |= {"answered": "x", "feeling": "x"} | templates.PRONOUNS[0]
    rng = random.Random(0)
    for rule in REQUESTS.rules:
        assert REQUESTS.count(rule) >= 1
        for _ in range(50):
            assert not {"{", "}", "[", "|", "("} & set(REQUESTS.say(rng, rule, **slots))
