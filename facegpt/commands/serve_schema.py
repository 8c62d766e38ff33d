"""`facegpt serve`: the bodies of requests and replies. The published schema is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

LONGEST_TEXT = 50_000  # characters; no model here has a context for so many
LARGEST_SEED = 2**63 - 1

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]


class TextPart(BaseModel):
    """A piece of a message's text."""

    type: Literal["text"]
    text: Text


class ImageUrl(BaseModel):
    """A picture as a data URL, `data:image/jpeg;base64,...`. Nothing is fetched from an address."""

    url: str


class ImagePart(BaseModel):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(BaseModel):
    """One turn. System text goes before the next user's text; only users show pictures."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=100)]


class StreamOptions(BaseModel):
    """include_usage: one chunk more at the end, with the number of tokens."""

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """OpenAI's chat completion. Fields that are not named here are ignored; `n`, `top_p`, `stop`, `tools` and
    `logprobs` may only say what is done anyway."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=100)]
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    seed: Seed | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    top_p: Annotated[float, Field(ge=1, le=1)] | None = None
    stop: Annotated[list[str], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: Literal[False] | None = None


class FaceRequest(BaseModel):
    """What to say a face for: a text, a picture (a data URL), or both.

    format: "json" for the reply with all its faces, "glb" for the mesh of the first face, "rigged" for one
    that can be animated.
    """

    text: Text | None = None
    image: str | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    seed: Seed | None = None
    format: Literal["json", "glb", "rigged"] = "json"


class Face(BaseModel):
    """One `<FACE>` of a reply. parameters: numbers by group; the file `json` has each with name and unit.

    probability: how likely the model found it. glb, png, json: links; they work as long as the server keeps
    the face.
    """

    id: str
    probability: float
    head_id: str
    parameters: dict[str, list[float]]
    glb: str
    png: str
    json_: str = Field(alias="json")


class FaceReply(BaseModel):
    """What the model said, `<FACE>` where a face is meant. notes: how the picture was taken."""

    text: str
    faces: list[Face]
    notes: list[str]


class AnswerMessage(BaseModel):
    """The reply; `faces` has one entry for each `<FACE>` of `content`. notes: how the pictures were taken."""

    role: Literal["assistant"] = "assistant"
    content: str
    faces: list[Face]
    notes: list[str]


class Choice(BaseModel):
    """finish_reason: "length" for a reply that was cut at the limit."""

    index: int = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatReply(BaseModel):
    """OpenAI's chat completion, with faces."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ModelCard(BaseModel):
    """The model that answers."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "facegpt"


class ModelList(BaseModel):
    """All models of this server: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Status(BaseModel):
    """waiting: requests in the queue."""

    status: Literal["ok", "busy", "stopped"]
    waiting: int


class ErrorDetail(BaseModel):
    """message: one sentence."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error in OpenAI's form."""

    error: ErrorDetail
