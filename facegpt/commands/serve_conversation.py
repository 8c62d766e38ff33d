"""`facegpt serve`: what a request says, as a conversation for the model; pictures are data URLs only."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from PIL import Image

from facegpt.chat import check_text
from facegpt.commands.chat_picture import cut_out
from facegpt.data.conversation import check_messages
from facegpt.errors import ImageError, SampleError
from facegpt.perception.images import decode_image
from facegpt.sample import IMAGE_TOKEN, Message, Sample

MOST_PICTURES = 8  # of one conversation
LARGEST_SIDE = 1024  # pixels in which a picture without a face that was found waits for the model
DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII | re.IGNORECASE)

Turn = tuple[str, str, Sequence[str]]  # role, text, data URLs of its pictures


def read_conversation(turns: Sequence[Turn]) -> tuple[Sample, list[str]]:
    """The conversation of a request and sentences on how its pictures were taken. It costs time: decoding.

    What the roles "system" and "developer" say stands before the next user's text, since the model knows no
    such turns. Raises SampleError for turns that do not alternate and texts that cannot be asked, ImageError.
    """
    messages: list[Message] = []
    urls: list[str] = []
    before: list[str] = []
    for role, text, pictures in turns:
        if role in ("system", "developer"):
            before.append(text)
            continue
        if role == "assistant":
            text = text.replace(IMAGE_TOKEN, "image")  # as in a chat: history must not ask for an image
        else:
            check_text(text)
            text = "\n\n".join([*before, text])
            check_text(text)
            text = f"{IMAGE_TOKEN}\n" * len(pictures) + text
            before = []
        urls += pictures
        messages.append(Message("assistant" if role == "assistant" else "user", text))
    check_messages(messages, "user", "the conversation")
    if len(urls) > MOST_PICTURES:
        raise SampleError(
            f"the conversation has {len(urls)} pictures, {MOST_PICTURES} are the most; leave some out"
        )
    images, notes = [], []
    for number, url in enumerate(urls, start=1):
        image, note = read_data_url(url, f"picture {number}" if len(urls) > 1 else "the picture")
        images.append(image)
        notes += [note] if note else []
    return Sample("the conversation", "serve", messages, images), notes


def read_data_url(url: str, name: str) -> tuple[Image.Image, str]:
    """The picture as the model gets it, and a note on it or "". Raises ImageError that begins with `name`."""
    head = DATA_URL.match(url)
    if not head:
        raise ImageError(
            f"{name} is no data URL: nothing is fetched from an address here; send the picture itself, as "
            "data:image/jpeg;base64,..."
        )
    try:
        content = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{name}: its base64 is broken; encode it again") from None
    image, note = cut_out(decode_image(content, name, upright=True), name)
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return image, note
