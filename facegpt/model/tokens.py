"""The face token: its row in the vocabulary, the positions that predict it, and the image it is about."""

from __future__ import annotations

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from facegpt.errors import CheckpointError
from facegpt.sample import FACE_TOKEN


def add_face_token(tokenizer: PreTrainedTokenizerBase, embedding_rows: int) -> int:
    """Add `<FACE>` to the tokenizer, unless it is there already, and return its id.

    Embeddings are padded to a round number of rows (llava-1.5-7b-hf has 32064 for 32002 tokens), so the token
    usually takes a spare row.

    It is an ordinary token, not a "special" one, so that decoding without special tokens still shows it.
    Raises CheckpointError when there is no spare row (grow the embedding first, never resize it to
    len(tokenizer): that shrinks it where there are), or when the tokenizer does not give the token back as
    one id.
    """
    if FACE_TOKEN not in tokenizer.get_vocab():
        if len(tokenizer) >= embedding_rows:
            counts = f"{len(tokenizer)} tokens, {embedding_rows} rows"
            raise CheckpointError(f"the backbone has no spare row for {FACE_TOKEN}: {counts}")
        tokenizer.add_tokens([AddedToken(FACE_TOKEN, normalized=False, special=False)])
    token_id = int(tokenizer.convert_tokens_to_ids(FACE_TOKEN))  # type: ignore[arg-type]
    # Compare whole lists: some tokenizers put a space piece in front, and who takes [0] trains that one.
    alone = tokenizer.encode(FACE_TOKEN, add_special_tokens=False)
    inside = tokenizer.encode(f"Here: {FACE_TOKEN}.", add_special_tokens=False)
    visible = FACE_TOKEN in tokenizer.decode([token_id], skip_special_tokens=True)
    if alone != [token_id] or inside.count(token_id) != 1 or not visible:
        raise CheckpointError(
            f"the tokenizer does not keep {FACE_TOKEN} in one piece: id {token_id}, but it encodes to {alone}"
        )
    return token_id


def face_positions(input_ids: Tensor, face_token_id: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the states that stand for faces: those which *predict* a face token.

    input_ids (N,T) int64, padded on either side. Returns rows (F,) and columns (F,) int64, row by row in the
    order of the tokens. The hidden state at column t-1 predicts the token at t; it is also the state that
    generation holds when it picks the token, so training and generation agree.

    This is the only place that knows the shift. Raises ValueError for a face token in the first column, which
    no state predicts.
    """
    is_face = input_ids == face_token_id
    if bool(is_face[:, 0].any()):
        row = int(is_face[:, 0].nonzero()[0])
        raise ValueError(f"conversation {row} begins with {FACE_TOKEN}, which no state predicts")
    rows, columns = torch.nonzero(is_face[:, 1:], as_tuple=True)
    return rows, columns


def images_before(is_image: Tensor, rows: Tensor, columns: Tensor, per_image: int) -> Tensor:
    """The image that was shown last before each face, (F,) int64: its number in the batch, -1 without any.

    is_image (N,T) bool: where image tokens stand, per_image of them for each image; rows, columns (F,) as
    `face_positions` returns them. Images are numbered as in a batch, row by row.
    """
    shown = is_image.long().cumsum(dim=1) // per_image  # (N, T): images of the row up to here
    first = shown[:, -1].cumsum(dim=0) - shown[:, -1]  # (N,): number of the first image of each row
    seen = shown[rows, columns]
    return torch.where(seen > 0, first[rows] + seen - 1, -1)
