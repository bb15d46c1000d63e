"""How alike the experts of a layer are: outputs for the same token, matrices, subspaces, gradients.

Every pair of experts is one row, so that a figure shows pairs and a mean over them; the same of a model with random
weights stands beside it.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from probes.expert_text import Scored
from probes.models.moe import RoutedModel

N_TOKENS = 256
"""Tokens that every expert of the layer is shown."""


def pairs(model: RoutedModel, layer: int, text: Scored) -> DataFrame:
    """One row a pair of experts: `layer, expert, other, output_cosine, neuron_cosine, subspace, gradient_cosine`.

    output_cosine    mean over tokens of the cosine of both experts' outputs for the same token, used or not
    neuron_cosine    mean over neurons of the largest |cosine| with a neuron of the other (columns of the down matrix)
    subspace         mean squared cosine of the principal angles between the spans of their down matrices (the r leading
                     singular directions, r = min(d_mlp, d_model / 4); by chance r / d_model)
    gradient_cosine  cosine of the loss gradients with respect to a vector added to each expert's output
    """
    outputs = of_all(model, layer, text)
    written = downs(model, layer, range(len(outputs)))
    gradient = torch.nn.functional.normalize(gradients(model, layer, text), dim=1)
    unit = torch.nn.functional.normalize(outputs, dim=2)
    spans = None if written is None else _spans(written)
    neurons = None if written is None else neuron_cosines(written)
    rows = []
    nan = float("nan")
    for i in range(len(outputs)):
        for j in range(i + 1, len(outputs)):
            neuron = subspace = nan
            if neurons is not None and spans is not None:
                neuron = float(neurons[i, j])
                subspace = float((spans[i].T @ spans[j]).square().sum() / spans.shape[2])
            both = unit[i].any(-1) & unit[j].any(-1)
            cosine = float((unit[i] * unit[j])[both].sum(-1).mean())
            rows.append((layer, i, j, cosine, neuron, subspace, float(gradient[i] @ gradient[j])))
    names = ["layer", "expert", "other", "output_cosine", "neuron_cosine", "subspace", "gradient_cosine"]
    chance = nan if spans is None else spans.shape[2] / spans.shape[1]
    return DataFrame(rows, columns=names).assign(subspace_chance=chance, n_tokens=outputs.shape[1])


def of_all(model: RoutedModel, layer: int, text: Scored) -> Float[Tensor, "n_experts tokens d_model"]:
    """What every expert of the layer makes of the same tokens, the first of the text."""
    seen: dict[str, Tensor] = {}
    batch = text.batches[0]
    model.observe(batch.ids, ("ffn_input",), lambda _, s: seen.update(s), layers=[layer])
    states = batch.flat(seen["ffn_input"])[:N_TOKENS]
    return torch.stack([_outputs(model, layer, states, e) for e in range(model.blocks[layer].n_experts)])


def same_token_cosine(
    model: RoutedModel, layer: int, states: Float[Tensor, "tokens d_model"]
) -> Float[Tensor, " tokens"]:
    """Mean over pairs of experts of the cosine of their outputs for each token: (|sum u|^2 - E) / (E (E - 1)).

    u are the outputs at unit length, E of them not 0; NaN where fewer than two are.  One expert's are held at a time.
    """
    total, n = torch.zeros(len(states), model.d_model), torch.zeros(len(states))
    for expert in range(model.blocks[layer].n_experts):
        unit = torch.nn.functional.normalize(_outputs(model, layer, states, expert), dim=1)
        total += unit
        n += unit.any(-1)
    return torch.where(n > 1, (total.square().sum(1) - n) / (n * (n - 1)), torch.nan)


def neuron_cosines(written: Float[Tensor, "n_experts d_model d_mlp"]) -> Float[Tensor, "n_experts n_experts"]:
    """Mean over neurons of the largest |cosine| with a neuron of the other expert, both ways; 1 on the diagonal."""
    unit = torch.nn.functional.normalize(written, dim=1)
    # one expert against all at a time: (E h)^2 cosines would not fit
    nearest = torch.stack([torch.einsum("dh,edg->ehg", one, unit).abs().amax(2).mean(1) for one in unit])
    return (nearest + nearest.T) / 2


def gradients(model: RoutedModel, layer: int, text: Scored) -> Float[Tensor, "n_experts d_model"]:
    """d loss / d b_e of a vector b_e added to each expert's output before weighting, summed over the first batch."""
    batch, real = text.batches[0], text.real(0)
    added = torch.zeros(model.blocks[layer].n_experts, model.d_model, dtype=model.dtype, device=model.device)
    added.requires_grad_(True)
    chosen: list[Tensor] = []
    hooks = [
        (layer, "expert_index", lambda index: chosen.__setitem__(slice(None), [index])),
        (layer, "expert_output", lambda o: o + added[chosen[0].clamp(min=0)] * (chosen[0] >= 0)[..., None]),
    ]
    with torch.enable_grad(), model.hooked(hooks):
        logits = model.hf(input_ids=batch.ids.to(model.device), use_cache=False).logits[:, :-1].float()
        target = batch.ids[:, 1:].to(logits.device)
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        (found,) = torch.autograd.grad(losses[real.to(losses.device)].sum(), added)
    return found.float().cpu()


def downs(model: RoutedModel, layer: int, experts: Iterable[int]) -> Float[Tensor, "n_experts d_model d_mlp"] | None:
    """The matrices through which these experts write; None where they have none of their own."""
    mixture = model.mixtures[layer]
    assert mixture is not None
    try:
        return torch.stack([mixture.down(e, model.d_model).cpu() for e in experts])
    except (ValueError, IndexError):  # no stack of matrices, or experts that pass tokens through
        return None


def _outputs(
    model: RoutedModel, layer: int, states: Float[Tensor, "tokens d_model"], expert: int
) -> Float[Tensor, "tokens d_model"]:
    mixture = model.mixtures[layer]
    assert mixture is not None
    states = states.to(model.device)
    index = torch.full((len(states), 1), expert, dtype=torch.long, device=states.device)
    with torch.no_grad():
        return mixture.outputs(states, index)[:, 0].float().cpu()


def _spans(downs: Float[Tensor, "n_experts d_model d_mlp"]) -> Float[Tensor, "n_experts d_model rank"]:
    rank = max(1, min(downs.shape[2], downs.shape[1] // 4))
    return torch.linalg.svd(downs, full_matrices=False).U[:, :, :rank]
