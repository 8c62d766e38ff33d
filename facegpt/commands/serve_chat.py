"""`facegpt serve`: /v1/chat/completions, OpenAI's, whose message carries the faces."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from facegpt.commands.serve_answers import Service, address_of, answer_of, ask, pieces_of
from facegpt.commands.serve_conversation import Turn
from facegpt.commands.serve_gate import error_body
from facegpt.commands.serve_queue import Spoken
from facegpt.commands.serve_schema import ChatMessage, ChatReply, ChatRequest, ImagePart, TextPart
from facegpt.errors import FaceGPTError, SampleError

EVENTS: dict[str, Any] = {"text/event-stream": {}}


def chat_routes(service: Service) -> APIRouter:
    """The endpoint, for the app."""
    router = APIRouter()

    @router.post("/v1/chat/completions", response_model=ChatReply, responses={200: {"content": EVENTS}})
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Continue a conversation. With `stream`: server-sent events, whose last delta has the faces."""
        if body.model != service.name:
            raise HTTPException(
                404, f"there is no model {body.model[:60]!r}; this server has {service.name!r}"
            )
        turns = [read_message(message) for message in body.messages]
        limit = body.max_completion_tokens or body.max_tokens
        question = await ask(service, turns, limit, body.temperature, body.seed, bool(body.stream))
        about = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": service.name,
        }
        address = address_of(request)
        if body.stream:
            events = pieces_of(question)
            first = await anext(events)  # waited for, so that an error still has a status of its own
            counted = body.stream_options is not None and bool(body.stream_options.include_usage)
            lines = chunks(service, about, first, events, question.notes, address, counted)
            return StreamingResponse(lines, media_type="text/event-stream")
        spoken = await answer_of(question, request)
        message = {"role": "assistant", "content": spoken.turn.text}
        message |= faces_of(service, spoken, question.notes, address)
        choice = {"index": 0, "message": message, "finish_reason": reason(spoken), "logprobs": None}
        return JSONResponse(
            {**about, "object": "chat.completion", "choices": [choice], "usage": usage(spoken)}
        )

    return router


def read_message(message: ChatMessage) -> Turn:
    """Role, text and data URLs of one message. Raises SampleError for pictures of anybody but a user."""
    if isinstance(message.content, str):
        return message.role, message.content, []
    pictures = [part.image_url.url for part in message.content if isinstance(part, ImagePart)]
    if pictures and message.role != "user":
        raise SampleError(f"a {message.role} message has a picture; only user messages may")
    return message.role, "\n".join(p.text for p in message.content if isinstance(p, TextPart)), pictures


async def chunks(
    service: Service,
    about: dict[str, Any],
    first: str | Spoken,
    events: AsyncGenerator[str | Spoken],
    notes: list[str],
    address: str,
    counted: bool,
) -> AsyncIterator[str]:
    """The server-sent events of one answer, in OpenAI's form."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _event({**about, "object": "chat.completion.chunk", "choices": [choice]})

    try:
        yield chunk({"role": "assistant", "content": ""})
        event = first
        while isinstance(event, str):
            yield chunk({"content": event})
            event = await anext(events)
        yield chunk(faces_of(service, event, notes, address), reason(event))
        if counted:
            yield _event({**about, "object": "chat.completion.chunk", "choices": [], "usage": usage(event)})
    except FaceGPTError as error:
        yield _event(error_body(500, str(error)))
    finally:
        await events.aclose()
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, allow_nan=False)}\n\n"


def faces_of(service: Service, spoken: Spoken, notes: list[str], address: str) -> dict[str, Any]:
    """What a message has beyond OpenAI's: its faces, from now on kept, and notes on the pictures."""
    names = service.shelf.add(spoken.turn)
    return {"faces": [service.shelf.describe(name, address) for name in names], "notes": notes}


def reason(spoken: Spoken) -> str:
    """OpenAI's finish_reason."""
    return "length" if spoken.cut else "stop"


def usage(spoken: Spoken) -> dict[str, int]:
    """OpenAI's count of tokens."""
    total = spoken.prompt_tokens + spoken.tokens
    return {"prompt_tokens": spoken.prompt_tokens, "completion_tokens": spoken.tokens, "total_tokens": total}
