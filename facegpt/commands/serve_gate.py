"""`facegpt serve`: what is looked at before a request's body is read: its size and its key."""

from __future__ import annotations

import json
import secrets
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FREE = ("/health", "/ready", "/openapi.json")  # without the key
FACES = "/v1/faces/"  # to GET one, its name is enough: it cannot be guessed, and a page can show it


class Gate:
    """Middleware. largest: bytes of a body. key: of `Authorization: Bearer KEY`, None for any."""

    def __init__(self, app: ASGIApp, largest: int, key: str | None) -> None:
        self.app, self.largest = app, largest
        self.expected = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        if not self._may_pass(scope, headers.get(b"authorization", b"")):
            sentence = "the API key is missing or wrong; send the header Authorization: Bearer KEY"
            return await _refuse(send, 401, sentence)
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > self.largest:
            return await _refuse(send, 413, self._too_large)
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.largest:  # a body sent in chunks, without a length
                raise HTTPException(413, self._too_large)
            return message

        await self.app(scope, counted, send)

    def _may_pass(self, scope: Scope, authorization: bytes) -> bool:
        if self.expected is None or scope["path"] in FREE:
            return True
        if scope["method"] in ("GET", "HEAD") and scope["path"].startswith(FACES):
            return True
        return secrets.compare_digest(authorization, self.expected)

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self.largest:,} bytes; send a smaller picture"


def error_body(status: int, sentence: str) -> dict[str, Any]:
    """An error in OpenAI's form; what is no valid Unicode in the sentence is replaced."""
    kinds = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    message = sentence.encode("utf-8", "replace").decode()
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps(error_body(status, sentence)).encode()
    # The body is not read, so the connection cannot be used for another request.
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
