"""`facegpt serve`: from a request to what the model says, for every endpoint that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import Request

from facegpt.commands.serve_conversation import Turn, read_conversation
from facegpt.commands.serve_faces import FaceShelf
from facegpt.commands.serve_queue import Job, ModelQueue, Spoken
from facegpt.errors import FaceGPTError

SMALLEST_TEMPERATURE = 0.01  # below, logits divided by it would overflow; it means the likeliest token
LOOK_SECONDS = 0.5  # how often it is looked whether the client is still there

Result = TypeVar("Result")


class ClientGone(FaceGPTError):
    """Nobody waits for the answer any more."""


@dataclass
class Service:
    """What the endpoints share. max_new_tokens: of a reply, at most. hands: the one thread beside the model's
    that decodes pictures and makes files, so that no more than one large picture is in memory."""

    name: str
    queue: ModelQueue
    shelf: FaceShelf
    max_new_tokens: int = 256
    hands: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "hands"))

    async def work(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function that takes long beside the server's loop."""
        return await asyncio.get_running_loop().run_in_executor(self.hands, function, *arguments)

    def close(self) -> None:
        """Stop both threads."""
        self.queue.close()
        self.hands.shutdown(cancel_futures=True)


@dataclass
class Question:
    """A job in the queue, and what there is to say about its pictures. pieces: its text as it comes."""

    job: Job
    notes: list[str]
    pieces: asyncio.Queue[str]


async def ask(
    service: Service,
    turns: Sequence[Turn],
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    stream: bool = False,
) -> Question:
    """Put the conversation of a request into the queue.

    Raises QueueFull, before anything is decoded, and what `read_conversation` raises.
    """
    service.queue.check()
    sample, notes = await service.work(read_conversation, turns)
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str]()

    def pass_on(piece: str) -> None:
        with suppress(RuntimeError):  # the loop has ended, with it whoever listened
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    job = Job(
        sample,
        min(max_tokens or service.max_new_tokens, service.max_new_tokens),
        0.0 if temperature is None or temperature < SMALLEST_TEMPERATURE else temperature,
        seed,
        pass_on if stream else None,
    )
    service.queue.submit(job)
    return Question(job, notes, pieces)


def address_of(request: Request) -> str:
    """What links begin with: the address that the client asked, or "/" where its Host header is none."""
    try:
        return str(request.base_url)
    except ValueError:
        return "/"


async def answer_of(question: Question, request: Request) -> Spoken:
    """Wait for the whole answer. Raises ClientGone, and the job is dropped, when the client hangs up."""
    waiting = asyncio.wrap_future(question.job.future)
    try:
        while not (await asyncio.wait([waiting], timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientGone("the client has hung up")
        return waiting.result()
    finally:
        question.job.gone = True


async def pieces_of(question: Question) -> AsyncGenerator[str | Spoken]:
    """The text as it comes, and the whole answer at the end. Closed early, the job is dropped."""
    waiting = asyncio.wrap_future(question.job.future)
    try:
        while True:
            piece = asyncio.ensure_future(question.pieces.get())
            both: list[asyncio.Future[Any]] = [piece, waiting]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                piece.cancel()
                break
            yield piece.result()
        spoken = await waiting  # what was said before it is in the queue already
        while not question.pieces.empty():
            yield question.pieces.get_nowait()
        yield spoken
    finally:
        question.job.gone = True
