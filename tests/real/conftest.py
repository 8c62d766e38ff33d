"""Real photographs are measured by `make test-real` alone: they are fetched, and take minutes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from facegpt.errors import MissingPartError
from facegpt.perception.face_landmarker import FaceLandmarker
from facegpt.perception.recognizer import Recognizer, load_recognizer


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.markexpr == "real":
        return
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason="real photographs: `make test-real`"))


@pytest.fixture(scope="session")
def landmarker() -> FaceLandmarker:
    try:
        return FaceLandmarker.open()
    except MissingPartError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def sface() -> Recognizer:
    try:
        return load_recognizer("sface")
    except MissingPartError as error:
        pytest.skip(str(error))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints a number that was measured, past pytest."""

    def speak(sentence: str) -> None:
        with capsys.disabled():
            print(f"\n{sentence}")

    return speak
