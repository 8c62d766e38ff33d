"""Attention over words: a closed form, and what it must not depend on."""

from __future__ import annotations

import torch

from facegpt.model.text_reader import QUERIES, WIDTH, TextReader


def reader(hidden_size: int = 6) -> TextReader:
    torch.manual_seed(0)
    made = TextReader(hidden_size)
    torch.nn.init.normal_(made.where.weight)  # zero at the start
    return made


def inputs(hidden_size: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    told = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    return (
        torch.randn(2, hidden_size, generator=generator),
        torch.randn(2, 5, hidden_size, generator=generator),
        told,
    )


def test_it_is_attention_with_one_head_for_each_query() -> None:
    made, (states, words, told) = reader(), inputs()
    expected = []
    for state, row, counts in zip(states, words, told, strict=True):
        normed = made.norm(row[counts])
        queries = made.what + made.where(made.state_norm(state))
        # scaled_dot_product_attention divides by the square root of the width, the reader does not
        expected.append(
            torch.nn.functional.scaled_dot_product_attention(
                queries[None] * WIDTH**0.5, made.key(normed)[None], made.value(normed)[None]
            )[0].flatten()
        )
    found = made(states, words, told)
    assert found.shape == (2, TextReader.size) == (2, QUERIES * WIDTH)
    torch.testing.assert_close(found, torch.stack(expected))


def test_words_that_do_not_count_and_the_order_of_those_that_do_change_nothing() -> None:
    made, (states, words, told) = reader(), inputs()
    found = made(states, words, told)
    torch.testing.assert_close(made(states, words.masked_fill(~told[..., None], 1e4), told), found)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(made(states, words[:, order], told[:, order]), found)
    assert (made(states.flip(0), words, told) - found).abs().max() > 1e-3, "the state says where to look"
