"""What a neuron writes, read in the vocabulary: its value vector through the final norm and the unembedding."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.models import LanguageModel

CHUNK = 512
"""Vectors read together; a chunk needs CHUNK x vocab x 4 bytes."""


def value_vectors(model: LanguageModel, layer: int) -> Float[Tensor, "d_mlp d_model"]:
    """What each neuron adds to the residual stream when its activation is 1, in float32.

    Found by setting the input of the down-projection to one neuron at a time, which reads the weights exactly in any
    number type.
    """
    width = model.blocks[layer].d_mlp
    blank = torch.zeros(1, 1, model.d_model, dtype=model.dtype, device=model.device)

    def output(z: Tensor) -> Tensor:
        with torch.no_grad(), model.edited({(layer, "neurons"): lambda t: z[None].to(t)}):
            return model.feed_forward(layer)(blank)[0].float()

    return output(torch.eye(width)) - output(torch.zeros(1, width))


def final_norm(model: LanguageModel) -> tuple[Float[Tensor, " d_model"], bool]:
    """Gain of the norm before the unembedding, and whether it subtracts the mean (LayerNorm) or not (RMSNorm).

    A vector of entries s = +-64 with mean 0 leaves a norm as g s / 64 + b, its negative as -g s / 64 + b; the same
    vector plus a constant leaves a LayerNorm alike.  The rest of the model is not asked.
    """
    if model.d_model % 2:
        raise ValueError(f"{model.title} has an odd width {model.d_model}; its final norm cannot be read")
    sign = torch.tensor([1.0, -1.0]).repeat(model.d_model // 2)
    asked = torch.stack([64 * sign, -64 * sign, 64 * sign + 8])
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.no_grad(), model.edited({(model.n_layers - 1, "block_output"): lambda t: asked[None].to(t)}):
        plus, minus, shifted = model.hf.base_model(input_ids=one, use_cache=False)[0][0].float().cpu()
    gain = (plus - minus) / 2 * sign
    return gain, bool((plus - shifted).norm() < 0.01 * plus.norm())


def readout(model: LanguageModel) -> Float[Tensor, "vocab d_model"]:
    """Rows r_t such that r_t . v is the logit of token t that a residual vector v adds, but for v's own scale.

    The unembedding with the final norm's gain folded in (and its mean subtraction, where it has one), in float32.
    """
    gain, centres = final_norm(model)
    rows = model.hf.get_output_embeddings().weight.detach().float() * gain.to(model.device)
    return rows - rows.mean(dim=1, keepdim=True) if centres else rows


def extremes(
    vectors: Float[Tensor, "n d_model"], rows: Float[Tensor, "vocab d_model"]
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """The token each vector raises most, and the one it lowers most."""
    most, least = [], []
    for part in vectors.split(CHUNK):
        scores = part @ rows.T
        most.append(scores.argmax(dim=1))
        least.append(scores.argmin(dim=1))
    return torch.cat(most).cpu(), torch.cat(least).cpu()


def top_tokens(
    vectors: Float[Tensor, "n d_model"], rows: Float[Tensor, "vocab d_model"], k: int = 10
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The k tokens each vector raises most and their scores: standard deviations above its mean over the vocabulary."""
    ids, scores = [], []
    for part in vectors.split(CHUNK):
        logits = part @ rows.T
        top = logits.topk(k, dim=1)
        ids.append(top.indices)
        scores.append((top.values - logits.mean(dim=1, keepdim=True)) / logits.std(dim=1, keepdim=True))
    return torch.cat(ids).cpu(), torch.cat(scores).cpu()
