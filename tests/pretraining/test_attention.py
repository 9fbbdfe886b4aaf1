"""Attention over packed rows: that of a block-diagonal mask, and blind to other documents."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch")

from cmbert_retrieval.pretraining.attention import packed_attention  # noqa: E402

pytestmark = pytest.mark.slow  # torch

HEADS, DIM = 2, 8
LENGTHS = {"short": [3, 1, 17], "at a block's edge": [128, 256, 1], "long": [127, 129, 700, 40]}


def parts(tokens: int, *, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, HEADS, tokens, DIM, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    ]


def borders(lengths: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def plain(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], window: int | None
) -> torch.Tensor:
    """Attend with a mask that is written out, softmax and all."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(len(document))
    visible = document[:, None] == document[None]
    if window is not None:
        visible &= (place[:, None] - place[None]).abs() < window
    products = (query @ key.transpose(2, 3) * DIM**-0.5).masked_fill(~visible, float("-inf"))
    return (products.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 65, 3, 1, 2000])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_outputs_and_gradients_are_those_of_a_block_diagonal_mask(
    lengths: list[int], window: int | None
) -> None:
    inputs = parts(sum(lengths))
    expected = plain(*inputs, lengths, window)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad((expected * direction).sum(), inputs)
    found, _ = packed_attention(
        torch.nn.Identity(), *inputs, cu_seq_lens_q=borders(lengths), sliding_window=window, scaling=DIM**-0.5
    )
    torch.testing.assert_close(found, expected)
    for here, there in zip(torch.autograd.grad((found * direction).sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(here, there)


@pytest.mark.parametrize("window", [None, 65])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_in_bf16_it_is_the_same_but_for_rounding(lengths: list[int], window: int | None) -> None:
    inputs = [part.detach().bfloat16() for part in parts(sum(lengths))]
    found, _ = packed_attention(
        torch.nn.Identity(), *inputs, cu_seq_lens_q=borders(lengths), sliding_window=window, scaling=DIM**-0.5
    )
    expected = plain(*(part.double() for part in inputs), lengths, window)
    torch.testing.assert_close(found.double(), expected, atol=0.03, rtol=0.03)


def test_a_mask_or_rows_beside_each_other_are_refused() -> None:
    query, key, value = parts(4)
    with pytest.raises(ValueError, match="one long row, no mask, and the documents' borders"):
        packed_attention(torch.nn.Identity(), query, key, value)
