"""How far counting words comes: the baseline of text to face, a ridge from words to the parameters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from facegpt.data.held_out import true_parameters
from facegpt.data.records import FaceRecords
from facegpt.errors import SampleError
from facegpt.evaluation.linear_readout import fit_parameters, predict_parameters
from facegpt.evaluation.prompts import described, description_of
from facegpt.evaluation.ridge import FOLDS
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.sample import FaceRecord

MOST_NGRAMS = 20_000
LEAST_TEXTS = 2  # that have an n-gram, for it to count


def ngrams(text: str) -> set[str]:
    """The words of a text in lower case, and their neighbouring pairs."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {*words, *(f"{first} {second}" for first, second in pairwise(words))}


def vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """N-gram -> column, for those in at least `LEAST_TEXTS` texts; the `MOST_NGRAMS` most frequent ones."""
    counts = Counter(ngram for text in texts for ngram in ngrams(text))
    often = [(-count, ngram) for ngram, count in counts.items() if count >= LEAST_TEXTS]
    return {ngram: column for column, (_, ngram) in enumerate(sorted(often)[:MOST_NGRAMS])}


def presence(texts: Sequence[str], columns: dict[str, int]) -> Tensor:
    """(N, columns) float32: 1 where a text has the n-gram."""
    table = torch.zeros(len(texts), len(columns))
    for row, text in enumerate(texts):
        table[row, [columns[ngram] for ngram in ngrams(text) if ngram in columns]] = 1.0
    return table


def nearest_text(texts: Sequence[str], others: Sequence[str]) -> list[int]:
    """For each text the place of the most similar one among the others: cosine of their n-grams' tf-idf.

    The first of several equally similar ones; n-grams count that are in the others (Salton and Buckley 1988).
    """
    columns = vocabulary(others)
    there = presence(others, columns).double()
    rarity = torch.log(len(others) / there.sum(dim=0).clamp(min=1))
    known = torch.nn.functional.normalize(there * rarity, dim=1)
    asked = torch.nn.functional.normalize(presence(texts, columns).double() * rarity, dim=1)
    return (asked @ known.T).argmax(dim=1).tolist()


def ngram_faces(
    training: FaceRecords, records: Sequence[FaceRecord], head: HeadModel, limit: int, seed: int
) -> dict[str, FaceParameters]:
    """What words alone give to the descriptions of N records, from the first `limit` described training
    faces.

    ngram_ridge: the faces of a ridge from n-grams to the true parameters. nearest_text: the true face of the
    training description that is most similar.
    Raises SampleError when the training faces are too few, share no words, or have no known parameters.
    """
    few = described(training, limit)
    truth = true_parameters(few, training, head)
    texts = [description_of(record) for record in few]
    asked = [description_of(record) for record in records]
    columns = vocabulary(texts)
    if truth is None or len(few) < FOLDS or not columns:
        raise SampleError(
            f"{training.path} needs {FOLDS} or more described faces with known parameters for the n-gram "
            "baseline; describe more, or leave training_data empty"
        )
    ridge = fit_parameters(presence(texts, columns), truth, seed)
    return {
        "ngram_ridge": predict_parameters(ridge, presence(asked, columns), truth),
        "nearest_text": truth[torch.tensor(nearest_text(asked, texts))],
    }
