"""Wording varies, holds its placeholders, and follows from the generator alone."""

from __future__ import annotations

import random

import numpy as np
from chat_formats import chat_processor

from facegpt.data import templates
from facegpt.data.conversation import encode_conversation
from facegpt.data.templates import combined_request, face_request
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
    wordings += [(f"<image>\n{p.replace('{}', 'Why?')}", "<FACE>") for p in templates.COMBINED_PROMPTS]
    wordings += [("Why?", answer.replace("{}", "Because.")) for answer in templates.COMBINED_ANSWERS]
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
    assert len({face_request(random.Random(seed))[0] for seed in range(200)}) == len(templates.IMAGE_PROMPTS)


def test_a_combined_request_holds_question_answer_and_face():
    for seed in range(20):
        prompt, answer = combined_request(random.Random(seed), "Which hat {}?", "A red hat {}.")
        assert "Which hat {}?" in prompt and "A red hat {}." in answer and answer.count("<FACE>") == 1
