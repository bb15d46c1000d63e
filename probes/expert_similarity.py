"""How alike the experts of a layer are: outputs for the same token, matrices, subspaces, gradients.

Every pair of experts is one row, so that a figure shows pairs and a mean over them; the same of a model with random
weights stands beside it.
"""

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
    downs = _downs(model, layer)
    gradient = torch.nn.functional.normalize(gradients(model, layer, text), dim=1)
    unit = torch.nn.functional.normalize(outputs, dim=2)
    spans = None if downs is None else _spans(downs)
    neurons = None if downs is None else torch.nn.functional.normalize(downs, dim=1)
    rows = []
    nan = float("nan")
    for i in range(len(outputs)):
        for j in range(i + 1, len(outputs)):
            neuron = subspace = nan
            if neurons is not None and spans is not None:
                cosines = (neurons[i].T @ neurons[j]).abs()
                neuron = float((cosines.amax(0).mean() + cosines.amax(1).mean()) / 2)
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
    mixture, n_experts = model.mixtures[layer], model.blocks[layer].n_experts
    assert mixture is not None
    one = torch.zeros(len(states), 1, dtype=torch.long, device=states.device)
    with torch.no_grad():
        return torch.stack([mixture.outputs(states, one + e)[:, 0].float().cpu() for e in range(n_experts)])


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


def _downs(model: RoutedModel, layer: int) -> Float[Tensor, "n_experts d_model d_mlp"] | None:
    mixture = model.mixtures[layer]
    assert mixture is not None
    try:
        return torch.stack([mixture.down(e, model.d_model).cpu() for e in range(model.blocks[layer].n_experts)])
    except (ValueError, IndexError):  # no stack of matrices, or experts that pass tokens through
        return None


def _spans(downs: Float[Tensor, "n_experts d_model d_mlp"]) -> Float[Tensor, "n_experts d_model rank"]:
    rank = max(1, min(downs.shape[2], downs.shape[1] // 4))
    return torch.linalg.svd(downs, full_matrices=False).U[:, :, :rank]
