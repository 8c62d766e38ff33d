"""Work for several processes, its results in the order of the items and never far ahead of who reads them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 3  # items per process that are begun before the first of them is read

_work: Callable[[Any], Any]  # what this process does


class Workers(Generic[Item, Result]):
    """Processes that do one thing to items, such as photographs.

    make: called once in every process, returns what is done to an item; both must be picklable. count: number
    of processes, each with one thread; 0 does it in this one. lost: the result of an item whose process died
    over it (a decoder that crashes, or no memory left); the others are done again and nothing stops.

    Example:
        with Workers(partial(open_reader, settings), 2, lambda item: None) as workers:
            for result in workers.results(items): ...
    """

    def __init__(
        self, make: Callable[[], Callable[[Item], Result]], count: int, lost: Callable[[Item], Result]
    ) -> None:
        self.make, self.count, self.lost = make, count, lost
        self._here = make() if count == 0 else None
        self._pool = self._new_pool() if count else None

    def __enter__(self) -> Workers[Item, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def results(self, items: Iterable[Item]) -> Iterator[Result]:
        """One result per item, in their order; `items` is read no further than is worked on."""
        if self._here is not None:
            yield from map(self._here, items)
            return
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            waiting.append((item, self._submit(item)))
            if len(waiting) >= AHEAD * self.count:
                yield from self._next(waiting)
        while waiting:
            yield from self._next(waiting)

    def _next(self, waiting: deque[tuple[Item, Future[Result]]]) -> Iterator[Result]:
        """The first result; or all of them, when a process has died over one of the items."""
        try:
            result = waiting[0][1].result()
        except BrokenProcessPool:
            begun = list(waiting)
            waiting.clear()
            self._replace_pool()
            yield from (self._again(item, future) for item, future in begun)
        else:
            waiting.popleft()
            yield result

    def _again(self, item: Item, future: Future[Result]) -> Result:
        """What was done before the end, or else the item alone: it is to blame if it happens again."""
        if isinstance(future.exception(), BrokenProcessPool):
            try:
                return self._submit(item).result()
            except BrokenProcessPool:
                self._replace_pool()
                return self.lost(item)
        return future.result()

    def _submit(self, item: Item) -> Future[Result]:
        assert self._pool is not None
        try:
            return self._pool.submit(_do, item)
        except BrokenProcessPool as error:
            broken: Future[Result] = Future()
            broken.set_exception(error)
            return broken

    def _replace_pool(self) -> None:
        assert self._pool is not None
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Spawned: a fork of a process with torch's threads can hang.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, context, _begin, (self.make,))


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _work = make()


def _end_with_parent() -> None:
    """After kill -9 of the parent nobody tells its processes to end, and they would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _do(item: Any) -> Any:
    return _work(item)
