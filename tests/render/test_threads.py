"""Faces spread over threads: all of them once, with errors, also in a process that was forked."""

import multiprocessing
import threading
from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("numba", reason="the numba package is not installed")

from facegpt.render.backends.numba.threads import for_each_face


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_face_is_worked_on_once_and_by_several_threads() -> None:
    done: list[int] = []
    meeting = threading.Barrier(3, timeout=30)  # passed only if three threads are there together

    def work(face: int) -> None:
        if face < 3:
            meeting.wait()
        done.append(face)

    for_each_face(work, 20)
    assert sorted(done) == list(range(20))


@pytest.mark.parametrize("batch", [1, 2, 20])
def test_an_error_comes_out(batch: int) -> None:
    def work(face: int) -> None:
        raise ArithmeticError(f"face {face}")

    with pytest.raises(ArithmeticError, match="face"):
        for_each_face(work, batch)


def test_an_empty_batch_is_no_work() -> None:
    for_each_face(lambda face: pytest.fail("there is no face"), 0)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """As in a data loader's worker: the threads of the parent are not there."""
    for_each_face(lambda face: None, 4)
    context = multiprocessing.get_context("fork")
    done = context.SimpleQueue()
    child = context.Process(target=for_each_face, args=(done.put, 4))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert sorted(done.get() for _ in range(4)) == [0, 1, 2, 3]
