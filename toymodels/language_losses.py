"""Losses of a small language model on text it was not trained on, and of the n-grams it must beat."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.ngram import KneserNey

ORDER = 5
"""Longest n-gram of the control; shorter where the vocabulary is so large that five tokens do not fit 63 bits."""


def next_token_loss(
    logits: Float[Tensor, "rows length vocab"], rows: Int[Tensor, "rows length"], reduction: str = "mean"
) -> Tensor:
    """Nats of each token given those before it in its row."""
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten(), reduction=reduction)


@torch.no_grad()
def held_out_loss(model: nn.Module, held: Int[Tensor, "windows window"]) -> float:
    """Nats a token of the held-out windows, each token given those before it in its window."""
    model.eval()
    total = sum(float(next_token_loss(model(input_ids=rows).logits, rows, "sum")) for rows in held.split(16))
    model.train()
    return total / (held.shape[0] * (held.shape[1] - 1))


def unigram_loss(text: Int[Tensor, " n_tokens"], held: Int[Tensor, "windows window"], vocab_size: int) -> float:
    """Nats a token of held-out text under the frequencies of the training text, each count plus one."""
    counts = torch.bincount(text, minlength=vocab_size).double() + 1
    return float(-(counts / counts.sum()).log()[held[:, 1:]].mean())


def kneser_ney_loss(text: Int[Tensor, " n_tokens"], held: Int[Tensor, "windows window"], vocab_size: int) -> float:
    """Nats a token of held-out text under the interpolated Kneser-Ney 5-gram of the training text, same windows."""
    order = min(ORDER, int(62 / math.log2(vocab_size)))
    return float(KneserNey(text.numpy(), vocab_size, order).loss(held.numpy()).mean())


def controls(text: Int[Tensor, " n_tokens"], held: Int[Tensor, "windows window"], vocab_size: int) -> dict[str, float]:
    """What the losses are read against: `unigram`, `kneser_ney`, and `uniform` (ln of the number of tokens)."""
    return {
        "unigram": unigram_loss(text, held, vocab_size),
        "kneser_ney": kneser_ney_loss(text, held, vocab_size),
        "uniform": math.log(vocab_size),
    }
