"""The wording of questions and answers: what the untouched VLM is asked, and how face requests are phrased."""

from __future__ import annotations

ASPECT_QUESTIONS: dict[str, str] = {
    "shape": "Describe the shape of this face: the jaw line, the forehead and the cheek bones.",
    "expression": "Describe the facial expression: the brows, the eyes, the mouth and any wrinkles or dimples.",
    "colour": "Describe the colours of this face: the skin tone, freckles and make-up.",
    "light": "Describe the light on this face: its direction, its strength and the shadows.",
    "pose": "Describe the head pose: which way is the head turned, nodded or tilted?",
}

FACE_QUESTIONS: list[str] = [
    "What can you say about this person's hair?",
    "What are the dominant colours of this picture?",
    "Which occasion do the clothes suggest?",
    "What is the person's expression?",
    "Where was this photograph taken?",
    "What is the person wearing?",
]
