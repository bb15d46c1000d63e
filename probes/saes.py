"""Sparse autoencoders: what they keep of a model's activations, beside random weights and principal components.

from probes import open_model, saes
tables, made = saes.measure(open_model(), open_corpus(), saes.SaeConfig(layer=15))
coherence.measure(made["real"].decoder)            # columns are latents
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.tables import Tables
from probes import controls, stream
from probes.activations import Activations, cached, held_out
from probes.firing import interval
from probes.models import LanguageModel
from probes.saes_training import Sae, SaeConfig, SaeError, load, train
from probes.stream import N_BLOCKS, StreamConfig

__all__ = [
    "HARM", "Sae", "SaeConfig", "SaeError", "load", "losses", "measure", "principal_components", "report", "train",
    "unexplained",
]  # fmt: skip

FIRST = 4
"""Positions at the start of a window that are left as they are when a site is replaced: attention sinks live there."""
HARM = 0.05
"""Nats a token that an ablation must cost before one can say what share of it is recovered."""
Rebuild = Callable[[Tensor], Tensor]
LOSS_TOKENS = 2_000
"""Tokens on which the language model's loss is compared."""


def measure(
    model: LanguageModel,
    corpus: Corpus,
    config: SaeConfig | None = None,
    *,
    sae: Sae | None = None,
    control: bool = True,
    scratch: Path | None = None,
    progress: Progress = silent,
) -> tuple[Tables, dict[str, Sae]]:
    """Train an autoencoder (or take `sae`) and report it, beside its controls, on documents it was not trained on.

    Controls: `random_init`, an autoencoder of the same settings trained on the same site of the model with random
    weights (only where one is trained), and `pca`, as many principal components as the autoencoder has active latents.

    Tables
        sae           condition, site, layer, architecture, d_in, d_sae, l0 (active latents a token), fvu (sum of
                      squared errors over sum of squared deviations from the mean), fvu_low, fvu_high (95%, documents
                      resampled), fvu_token (the same ratio a token, then averaged), dead_latents (active for none of
                      the n_tokens measured), loss, loss_sae, loss_mean, loss_zero (nats a token: as it is, site
                      replaced by its reconstruction, by its mean, by 0), recovered_mean, recovered_zero, n_tokens,
                      n_loss_tokens
        sae_latents   condition, latent, frequency, mean_active (mean where active), norm (of its decoder column)
        sae_training  condition, step, fvu, l0

    The autoencoders come second, by condition.  Raises SaeError or ValueError with what does not fit.
    """
    config = config or SaeConfig()
    layer = model.n_layers // 2 if config.layer is None else config.layer
    subjects = {"real": model}
    if control and sae is None:
        subjects["random_init"] = controls.random_init(model, config.seed)
    parts: dict[str, list[DataFrame]] = {"sae": [], "sae_latents": [], "sae_training": []}
    made: dict[str, Sae] = {}
    read = StreamConfig(n_tokens=config.n_tokens, seed=config.seed)
    for number, (condition, subject) in enumerate(subjects.items()):
        step = within(progress, number, len(subjects))
        reading, training = within(step, 0, 1, share=0.5), within(step, 0.5, 1, share=0.4)
        with cached(subject, corpus, config.site, layer, read, folder=scratch, progress=reading) as rows:
            if sae is None:
                made[condition], course = train(rows, config, name=condition, progress=training)
                parts["sae_training"].append(course.assign(condition=condition))
            else:
                made[condition] = sae
            found, latents = report(made[condition], rows)
            told = {condition: {"architecture": made[condition].model.cfg.architecture()} | found}
            rebuilt: dict[str, Rebuild] = {condition: made[condition].reconstruct}
            if condition == "real" and control:
                rebuilt["pca"], principal = _principal(rows, found["l0"])
                told["pca"] = {"architecture": "pca"} | principal
            lost = losses(subject, corpus, config.site, layer, read, rebuilt, _mean(rows))
            for name, about in told.items():
                known = {"condition": name, "site": config.site, "layer": layer}
                parts["sae"].append(DataFrame([known | about | lost[name]]))
            parts["sae_latents"].append(latents.assign(condition=condition))
        step(1, 1, f"{condition} is measured")
    return Tables({k: pd.concat(v, ignore_index=True) for k, v in parts.items() if v}), made


def report(sae: Sae, rows: Activations) -> tuple[dict[str, Any], DataFrame]:
    """L0, FVU and dead latents on the held-out rows, and a row a latent; names as in `measure`."""
    if sae.d_in != rows.width:
        raise SaeError(f"the autoencoder reads vectors of {sae.d_in} numbers, this site has {rows.width}")
    active, weight = torch.zeros(sae.d_sae), torch.zeros(sae.d_sae)

    def through(x: Tensor) -> Tensor:
        latents = sae.encode(x).float()
        active.add_((latents != 0).sum(dim=0))
        weight.add_(latents.sum(dim=0))
        return sae.model.decode(latents).detach()

    found, n = unexplained(rows, through)
    found |= {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "l0": float(active.sum() / n),
        "dead_latents": int((active == 0).sum()),
    }
    latents = {
        "latent": np.arange(sae.d_sae),
        "frequency": (active / n).numpy(),
        "mean_active": (weight / active.clamp(min=1)).numpy(),
        "norm": sae.W_dec.norm(dim=1).float().numpy(),
    }
    return found, DataFrame(latents)


@torch.no_grad()
def unexplained(rows: Activations, rebuild: Rebuild) -> tuple[dict[str, Any], int]:
    """Fraction of the held-out rows' variance that `rebuild` misses: over all, with interval, and averaged by token."""
    index = np.flatnonzero(rows.held_out)
    if not len(index):
        raise SaeError("no document was kept for measuring; read text of at least two documents")
    mean = torch.from_numpy(rows.rows[index].mean(axis=0, dtype=np.float64)).float()
    error, spread, ratio = np.zeros(N_BLOCKS), np.zeros(N_BLOCKS), 0.0
    for part, x in rows.chunks(index):
        missed = (rebuild(x) - x).square().sum(dim=1).double()
        around = (x - mean).square().sum(dim=1).double()
        np.add.at(error, rows.block[part], missed.numpy())
        np.add.at(spread, rows.block[part], around.numpy())
        ratio += float((missed / around.clamp(min=1e-12)).sum())
    low, high = interval(error, spread)
    found = {"fvu": float(error.sum() / spread.sum()), "fvu_low": float(low), "fvu_high": float(high)}
    return found | {"fvu_token": ratio / len(index), "n_tokens": len(index)}, len(index)


def losses(
    model: LanguageModel,
    corpus: Corpus,
    site: str,
    layer: int,
    read: StreamConfig,
    rebuilt: Mapping[str, Rebuild],
    mean: Float[Tensor, " width"],
) -> dict[str, dict[str, Any]]:
    """By name of `rebuilt`: the model's loss with the site as it is, rebuilt, replaced by its mean, and by 0.

    recovered = (loss_ablated - loss_sae) / (loss_ablated - loss): 1 if nothing is lost, 0 if no better than ablation,
    and not a number where ablation costs less than HARM nats, as in a model with random weights: there is nothing to
    recover, and the ratio would be noise.  Held-out documents only; what all have in common is computed once.
    """
    same: dict[str, Rebuild | None] = {
        "loss": None,
        "loss_mean": lambda x: mean.to(x.device, x.dtype).expand_as(x),
        "loss_zero": torch.zeros_like,
    }
    alike, each, count = dict.fromkeys(same, 0.0), dict.fromkeys(rebuilt, 0.0), 0
    begin = layer if model.resumes(layer) else 0
    for batch in _measured_batches(model, corpus, read):
        real = torch.tensor([len(w) for w in batch.windows])[:, None] > torch.arange(1, batch.ids.shape[1])
        count += int(real.sum())
        with model.resumed(begin, model.outputs_of(begin - 1, batch.ids)):
            for name, edit in same.items():
                alike[name] += _loss(model, batch.ids, real, site, layer, edit)
            for name, rebuild in rebuilt.items():
                each[name] += _loss(model, batch.ids, real, site, layer, rebuild)
    if not count:
        raise SaeError("no held-out text to measure the loss on; read text of at least two documents")
    return {name: _recovered(alike | {"loss_sae": total}, count) for name, total in each.items()}


def _recovered(sums: dict[str, float], count: int) -> dict[str, Any]:
    order = ("loss", "loss_sae", "loss_mean", "loss_zero")
    found: dict[str, Any] = {name: sums[name] / count for name in order}
    for how in ("mean", "zero"):
        harm = found[f"loss_{how}"] - found["loss"]
        saved = found[f"loss_{how}"] - found["loss_sae"]
        found[f"recovered_{how}"] = saved / harm if harm > HARM else float("nan")
    return found | {"n_loss_tokens": count}


def _measured_batches(model: LanguageModel, corpus: Corpus, read: StreamConfig) -> Any:
    """Windows of documents that no autoencoder was trained on, about LOSS_TOKENS tokens of them."""
    given = corpus.tokenize(
        model.tokenizer,
        n_tokens=read.n_tokens,
        tokens_per_document=stream.tokens_each(corpus, read),
        seed=read.seed,
    )
    chosen, size = [], 0
    for document in given:
        if size < LOSS_TOKENS and held_out(np.array([document.document_index % N_BLOCKS]))[0]:
            chosen.append(document.head(LOSS_TOKENS - size))
            size += len(chosen[-1])
    return stream.batches(chosen, model, read) if chosen else []


def _loss(
    model: LanguageModel,
    ids: Tensor,
    real: Tensor,
    site: str,
    layer: int,
    edit: Rebuild | None,
) -> float:
    def past_the_first(x: Tensor) -> Tensor:
        assert edit is not None
        return torch.cat([x[:, :FIRST], edit(x[:, FIRST:])], dim=1)

    if edit is None:
        nats = model.losses(ids)
    else:
        with model.edited({(layer, site): past_the_first}):
            nats = model.losses(ids)
    return float(nats[real.to(nats.device)].double().sum())


def _principal(rows: Activations, l0: float) -> tuple[Rebuild, dict[str, Any]]:
    """As many principal components of the training rows as the autoencoder has active latents, and what they miss."""
    mean, directions = principal_components(rows, max(1, round(l0)))

    def rebuild(x: Tensor) -> Tensor:
        at, basis = mean.to(x.device, x.dtype), directions.to(x.device, x.dtype)
        return (x - at) @ basis @ basis.T + at

    found, n = unexplained(rows, rebuild)[0], directions.shape[1]
    return rebuild, found | {"d_in": rows.width, "d_sae": n, "l0": float(n), "dead_latents": 0}


def principal_components(rows: Activations, n: int) -> tuple[Float[Tensor, " width"], Float[Tensor, "width n"]]:
    """Mean and the first n principal directions of the rows that are not held out."""
    index = np.flatnonzero(~rows.held_out)
    mean, product = _mean(rows).double(), torch.zeros(rows.width, rows.width, dtype=torch.float64)
    for _, x in rows.chunks(index):
        centred = x.double() - mean
        product += centred.T @ centred
    return mean.float(), torch.linalg.eigh(product).eigenvectors[:, -n:].flip(1).float()


def _mean(rows: Activations) -> Float[Tensor, " width"]:
    index = np.flatnonzero(~rows.held_out)
    total = sum(x.double().sum(dim=0) for _, x in rows.chunks(index))
    return (torch.as_tensor(total) / max(len(index), 1)).float()
