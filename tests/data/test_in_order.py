"""Results come in order, and an item that kills its process takes nobody along."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from facegpt.data.in_order import AHEAD, Workers

EVALUATE = partial(eval, "eval")  # makes what evaluates expressions; another process can import it too


def test_a_process_that_dies_costs_one_item():
    die = "__import__('os').kill(__import__('os').getpid(), 9)"
    items = ["1 + 1", "2 + 2", die, "3 + 3", "4 + 4", "5 + 5", "6 + 6"]
    taken: list[str] = []

    def given() -> Iterator[str]:
        for item in items:
            taken.append(item)
            yield item

    with Workers(EVALUATE, 1, lambda item: "lost") as workers:
        results = workers.results(given())
        assert next(results) == 2 and len(taken) <= AHEAD + 1  # no further than is worked on
        assert list(results) == [4, "lost", 6, 8, 10, 12]


def test_without_processes_it_is_a_map():
    with Workers(EVALUATE, 0, lambda item: "lost") as workers:
        assert list(workers.results(["1 + 1", "2 + 2"])) == [2, 4]
