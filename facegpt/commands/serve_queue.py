"""`facegpt serve`: the queue before the model. One thread answers what waits, several conversations at once.

Only this thread touches model and tokenizer, neither of which may be used from two threads. A batch runs
until its longest reply has ended; what arrives meanwhile makes the next one. Conversations share a batch when
they draw alike (same temperature, no seed) and fit into the model's context together.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from facegpt.chat import TextStream, Turn, answer, as_turn, context_length
from facegpt.data.conversation import encode_prompt
from facegpt.errors import FaceGPTError, SampleError
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import Reply, end_token_ids
from facegpt.sample import Sample

GATHER_SECONDS = 0.02  # that a batch waits for others, for requests sent together arrive one after the other
CLOSE_SECONDS = 10.0  # for the batch that is being answered


class QueueFull(FaceGPTError):
    """The server has as much to do as it may, or is going down: to be asked again later."""


@dataclass
class Spoken:
    """One answer. cut: it was ended by the limit on tokens (or its listener had gone), not by the model."""

    turn: Turn
    prompt_tokens: int
    tokens: int
    cut: bool


@dataclass(eq=False)
class Job:
    """A conversation that waits for its answer, which `future` will hold.

    max_new_tokens: at most, less where the context ends. on_text: is given the text piece by piece, in the
    model's thread. gone: set by whoever does not want the answer any more.
    """

    sample: Sample
    max_new_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    on_text: Callable[[str], None] | None = None
    gone: bool = False
    length: int = 0  # tokens of the conversation
    future: Future[Spoken] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # who waits for it may give up, but not take it away

    def shares(self, other: Job) -> bool:
        """Whether both may be drawn in one batch; a draw with a seed of its own must not depend on others."""
        if self.temperature == 0:
            return other.temperature == 0
        return self.temperature == other.temperature and self.seed is None and other.seed is None


class ModelQueue:
    """Answers jobs in its own thread; `close` it at the end.

    largest: jobs that may wait. batch: conversations that are answered at once.
    """

    def __init__(self, model: FaceGPT, batch: int = 16, largest: int = 64) -> None:
        self.model, self.batch, self.largest = model, batch, largest
        self.context = context_length(model)
        self.ends = set(end_token_ids(model))
        self.waiting: deque[Job] = deque()
        self.changed = threading.Condition()
        self.closed = False
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)
        self.thread.start()

    @property
    def full(self) -> bool:
        """Whether `submit` would refuse."""
        return self.closed or not self.thread.is_alive() or len(self.waiting) >= self.largest

    def check(self) -> None:
        """Raise QueueFull when there is no place; for asking before costly work on a request."""
        if self.full:
            raise QueueFull(
                f"the server has {len(self.waiting)} requests waiting and takes no more now; try later"
            )

    def submit(self, job: Job) -> None:
        """Let the job wait for its turn. Raises QueueFull when there is no place."""
        with self.changed:
            self.check()
            self.waiting.append(job)
            self.changed.notify()

    def close(self) -> None:
        """Refuse what waits and end after what is being answered."""
        with self.changed:
            self.closed = True
            while self.waiting:
                self.waiting.popleft().future.set_exception(QueueFull("the server is going down"))
            self.changed.notify()
        self.thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while jobs := self._next_batch():
            try:
                self._answer(jobs)
            except Exception as error:  # whatever it is, it belongs to these requests and not to the next
                for job in jobs:
                    if not job.future.done():
                        job.future.set_exception(error)

    def _next_batch(self) -> list[Job]:
        """The first job and those that can be answered with it; none when the queue is closed."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.closed)
                if self.closed:
                    return []
            time.sleep(GATHER_SECONDS)
            with self.changed:
                arrived = [job for job in self.waiting if not job.length]
            for job in arrived:
                self._measure(job)
            with self.changed:
                alive = [job for job in self.waiting if job.length and not job.gone and not job.future.done()]
                chosen = self._choose(alive)
                left = [job for job in self.waiting if not (job.gone or job.future.done())]
                self.waiting = deque(job for job in left if job not in chosen)
            if chosen:
                return chosen

    def _measure(self, job: Job) -> None:
        """Count the tokens of a conversation; one that cannot be answered gets its error."""
        try:
            job.length = len(encode_prompt(job.sample.messages, self.model.processor, job.sample.id))
            if job.length >= self.context:
                raise SampleError(
                    f"{job.sample.id} has {job.length} tokens, the model's context is {self.context}: "
                    "shorten it"
                )
            job.max_new_tokens = min(job.max_new_tokens, self.context - job.length)
        except Exception as error:
            if not job.future.done():  # the queue may have been closed
                job.future.set_exception(error)

    def _choose(self, jobs: list[Job]) -> list[Job]:
        chosen: list[Job] = []
        longest = new = 0
        for job in jobs:
            together = max(longest, job.length) + max(new, job.max_new_tokens)
            if chosen and (not job.shares(chosen[0]) or together > self.context):
                continue
            chosen.append(job)
            longest, new = max(longest, job.length), max(new, job.max_new_tokens)
            if len(chosen) == self.batch:
                break
        return chosen

    def _answer(self, jobs: list[Job]) -> None:
        streams = [TextStream(self.model) if job.on_text else None for job in jobs]
        counts = [0] * len(jobs)

        def listen(tokens: torch.Tensor) -> torch.Tensor:
            goes_on = []
            for row, (job, stream, token) in enumerate(zip(jobs, streams, tokens.tolist(), strict=True)):
                counts[row] += token >= 0
                if token >= 0 and stream and job.on_text and (piece := stream.add(token)):
                    job.on_text(piece)
                goes_on.append(counts[row] < job.max_new_tokens and not job.gone)
            return torch.tensor(goes_on, device=tokens.device)

        first = jobs[0]
        generator = torch.Generator(self.model.device)
        if first.seed is None:
            generator.seed()
        else:
            generator.manual_seed(first.seed)
        longest = max(job.max_new_tokens for job in jobs)
        samples = [job.sample for job in jobs]
        replies = answer(self.model, samples, longest, first.temperature, generator, listen)
        for job, stream, reply in zip(jobs, streams, replies, strict=True):
            if stream and job.on_text and (piece := stream.rest(reply.text)):
                job.on_text(piece)
            job.future.set_result(self._spoken(job, reply))

    def _spoken(self, job: Job, reply: Reply) -> Spoken:
        cut = int(reply.ids[-1]) not in self.ends
        turn = as_turn(reply)
        turn.faces = [face.to("cpu") for face in turn.faces]
        return Spoken(turn, job.length, len(reply.ids), cut)
