"""Sparse autoencoders on toy models, where the true features are known: were they found?

A sparse autoencoder of sae-lens is trained on hidden vectors h = W x of a trained toy; its decoder's rows are then
compared with the columns of W that the toy represents.  Seeds differ widely, so the best of several is taken, by the
loss that training minimises and never by the answer.
Sources: Sharkey et al. 2022, 'Taking features out of superposition' (mean max cosine); Paulo & Belrose 2025 and
2505.20254 (mean correlation coefficient); sae-lens (training).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float
from pandas import DataFrame
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from data import Config, Progress, Run, Tables, silent
from data.progress import within
from toymodels.config import ToyConfig
from toymodels.features import Source, sample
from toymodels.results import Toy
from toymodels.training import train as train_toys

if TYPE_CHECKING:
    from sae_lens import TrainingSAE

REPRESENTED = 0.5
"""Norm of W_i from which on a feature counts as represented, and so as something to be found."""

TOY = ToyConfig(n_features=20, d_hidden=10, feature_probability=0.05, steps=3000, learning_rate=3e-3, schedule="cosine")
"""Twenty features in ten dimensions, about one active at a time."""


class DictionaryConfig(Config):
    """A sparse autoencoder and its training."""

    architecture: Literal["standard", "topk", "batchtopk", "jumprelu"] = "standard"
    """Which autoencoder of sae-lens: L1 penalty, k largest, k largest on average over a batch, learned thresholds."""
    d_sae: PositiveInt | None = None
    """Latents; None gives as many as the toy has features."""
    sparsity: NonNegativeFloat = 0.1
    """Weight of the L1 (`standard`) or L0 (`jumprelu`) penalty."""
    k: PositiveInt = 2
    """Active latents (`topk`, and on average `batchtopk`); about n_features * feature_probability, or a little more."""
    steps: PositiveInt = 3000
    """Adam steps."""
    batch_size: PositiveInt = 1024
    """Fresh hidden vectors a step."""
    learning_rate: PositiveFloat = 3e-3
    """Adam's step length; it falls linearly to 0 over the last fifth."""


def run(
    toy: Toy,
    config: DictionaryConfig | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    samples: int = 32_768,
    progress: Progress = silent,
) -> Tables:
    """Train one autoencoder a seed on a toy's hidden vectors and score each against the features it holds.

    Tables:
    * `runs`, one row a seed: `seed, loss` (training objective on fresh vectors), `best` (lowest), `mean_max_cosine`
      (mean over represented features of the largest cosine with a live latent), `mean_max_cosine_start` (the same
      before training: the control), `mcc` (mean |cosine| of the best one-to-one matching), `f1` (mean over represented
      features, each with its closest latent as detector), `dead_latents, l0` (active latents a vector), `l0_true`
      (active represented features), `fvu, n_represented, d_sae, n_samples`.
    * `features`, one row a represented feature of the best seed: `seed, feature, norm, latent, cosine, precision,
      recall, f1`.
    * `summary`, one row: `best_*` of the best seed, `mean_max_cosine_min, _max, _mean, _sd` over seeds,
      `mean_max_cosine_start` (mean), `share_above_99` (share of seeds with a mean max cosine >= .99), `n_seeds`.

    Raises ValueError for a toy that represents nothing.
    """
    config = config or DictionaryConfig()
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    kept = toy.W.norm(dim=0) >= REPRESENTED
    if not bool(kept.any()):
        raise ValueError("this toy represents no feature (every |W_i| < 1/2): nothing to find; train it longer")
    x = sample(toy.config, samples, seed=2**31)  # the same for all seeds, so that their losses compare
    rows, details = [], {}
    for done, seed in enumerate(chosen):
        start, sae = train(toy, config, seed=seed, progress=within(progress, done, len(chosen)))
        row, details[seed] = score(toy, sae, x, kept)
        before = mean_max_cosine(toy.W[:, kept].T, start)
        known = {"seed": seed, "loss": objective(sae, _hidden(toy, x), config)}
        rows.append(known | row | {"mean_max_cosine_start": before})
    frame = DataFrame(rows)
    frame.insert(2, "best", frame["loss"] == frame["loss"].min())
    best = int(frame.loc[frame["best"], "seed"].iloc[0])
    return Tables({"runs": frame, "features": details[best].assign(seed=best), "summary": _summary(frame)})


def recover(
    config: DictionaryConfig | None = None,
    *,
    toy: ToyConfig = TOY,
    toy_seeds: int = 5,
    seeds: int | Sequence[int] = 5,
    samples: int = 32_768,
    progress: Progress = silent,
    folder: Run | None = None,
) -> Tables:
    """The whole experiment: train `toy` from `toy_seeds` seeds, then do `run` on the one of lowest loss.

    Tables: those of `run`.  The toys' state goes to the run `folder`, if there is one, so that the training goes on
    where it was stopped; the autoencoders begin again, with the same outcome.  Raises ValueError as `run` does.
    """
    jobs = 1 + (seeds if isinstance(seeds, int) else len(seeds))
    best = train_toys(toy, seeds=toy_seeds, snapshots=0, progress=within(progress, 0, jobs), run=folder).best()
    return run(best, config, seeds=seeds, samples=samples, progress=within(progress, 1, jobs, share=jobs - 1))


def train(
    toy: Toy, config: DictionaryConfig, *, seed: int = 0, progress: Progress = silent
) -> tuple[Float[Tensor, "d_sae d_hidden"], "TrainingSAE[Any]"]:
    """One autoencoder through sae-lens's trainer; gives its decoder before training, and itself after."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    with torch.random.fork_rng(devices=[]):  # sae-lens draws its start from the global generator
        torch.manual_seed(seed)
        sae = _autoencoder(toy, config)
    start = sae.W_dec.detach().clone()
    settings = SAETrainerConfig(
        total_training_samples=config.steps * config.batch_size,
        train_batch_size_samples=config.batch_size,
        lr=config.learning_rate,
        lr_end=config.learning_rate,
        lr_decay_steps=config.steps // 5,
    )
    trainer: Any = SAETrainer(cfg=settings, sae=sae, data_provider=iter(()))
    source = Source([toy.config], [2**30 + seed], config.batch_size)
    for step in range(config.steps):
        trainer.maybe_reset_sparsity()
        trainer.step(_hidden(toy, source.batch(step)[0].T))
        trainer.n_training_steps += 1
        if step % 100 == 99 or step + 1 == config.steps:
            progress(step + 1, config.steps, f"{config.architecture} autoencoder, seed {seed}")
    return start, sae.eval()


@torch.no_grad()
def score(
    toy: Toy, sae: "TrainingSAE[Any]", x: Float[Tensor, "samples n_features"], kept: Bool[Tensor, " n_features"]
) -> tuple[dict[str, float], DataFrame]:
    """Numbers of one autoencoder, and a row for each represented feature; columns as in `run`."""
    hidden = _hidden(toy, x)
    latents = sae.encode(hidden)
    error = (sae.decode(latents) - hidden).square().sum() / (hidden - hidden.mean(0)).square().sum()
    truth, decoder = toy.W[:, kept].T, sae.W_dec
    live = (latents != 0).any(0)
    cosines = _cosines(truth, decoder)
    cosines[:, ~live] = -1.0
    cosine, latent = cosines.max(1)
    fires, active = latents[:, latent] != 0, x[:, kept] != 0
    precision, recall, f1 = detection(fires, active)
    numbers = {
        "mean_max_cosine": float(cosine.mean()),
        "mcc": mean_correlation(truth, decoder),
        "f1": float(f1.mean()),
        "dead_latents": int((~live).sum()),
        "l0": float((latents != 0).float().sum(1).mean()),
        "l0_true": float(active.float().sum(1).mean()),
        "fvu": float(error),
        "n_represented": int(kept.sum()),
        "d_sae": len(decoder),
        "n_samples": len(x),
    }
    columns = {"norm": truth.norm(dim=1), "latent": latent, "cosine": cosine}
    columns |= {"precision": precision, "recall": recall, "f1": f1}
    frame = DataFrame({"feature": kept.nonzero()[:, 0].numpy()} | {k: v.numpy() for k, v in columns.items()})
    return numbers, frame


def mean_max_cosine(truth: Float[Tensor, "features d"], decoder: Float[Tensor, "latents d"]) -> float:
    """Mean over true features of the largest cosine with any latent; 1 if every feature has its latent."""
    return float(_cosines(truth, decoder).amax(1).mean())


def mean_correlation(truth: Float[Tensor, "features d"], decoder: Float[Tensor, "latents d"]) -> float:
    """MCC: mean |cosine| over the one-to-one matching that makes it largest (Hungarian algorithm)."""
    cosines = _cosines(truth, decoder).abs().double().numpy()
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return float(cosines[rows, columns].mean())


def detection(
    fires: Bool[Tensor, "samples features"], active: Bool[Tensor, "samples features"]
) -> tuple[Float[Tensor, " features"], Float[Tensor, " features"], Float[Tensor, " features"]]:
    """Precision, recall and F1 of each column as a detector; 0 where there is nothing to divide by."""
    hits = (fires & active).float().sum(0)
    said, there = fires.float().sum(0), active.float().sum(0)
    return hits / said.clamp(min=1), hits / there.clamp(min=1), 2 * hits / (said + there).clamp(min=1)


@torch.no_grad()
def objective(sae: "TrainingSAE[Any]", hidden: Float[Tensor, "samples d_hidden"], config: DictionaryConfig) -> float:
    """What training minimises: squared error a vector, plus the penalty of `standard` and `jumprelu`."""
    latents = sae.encode(hidden)
    loss = (sae.decode(latents) - hidden).square().sum(1).mean()
    if config.architecture == "standard":
        loss = loss + config.sparsity * (latents * sae.W_dec.norm(dim=1)).sum(1).mean()
    elif config.architecture == "jumprelu":
        loss = loss + config.sparsity * (latents != 0).float().sum(1).mean()
    return float(loss)


def _autoencoder(toy: Toy, config: DictionaryConfig) -> "TrainingSAE[Any]":
    from sae_lens.registry import get_sae_training_class

    shape: dict[str, Any] = {"d_in": toy.config.d_hidden, "d_sae": config.d_sae or toy.config.n_features}
    if config.architecture in ("topk", "batchtopk") and config.k > shape["d_sae"]:
        raise ValueError(f"k={config.k} active latents exceed d_sae={shape['d_sae']}; choose k <= d_sae")
    of_its_own: dict[str, dict[str, float]] = {
        "topk": {"k": config.k},
        "batchtopk": {"k": float(config.k)},
        "jumprelu": {"l0_coefficient": config.sparsity},
        "standard": {"l1_coefficient": config.sparsity},
    }
    autoencoder, settings = get_sae_training_class(config.architecture)
    return autoencoder(settings(**shape, **of_its_own[config.architecture]))


@torch.no_grad()
def _hidden(toy: Toy, x: Float[Tensor, "samples n_features"]) -> Float[Tensor, "samples d_hidden"]:
    return toy.module().hidden(x)  # type: ignore[operator]


def _cosines(a: Float[Tensor, "rows d"], b: Float[Tensor, "others d"]) -> Float[Tensor, "rows others"]:
    return torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T


def _summary(runs: DataFrame) -> DataFrame:
    best = runs[runs["best"]].iloc[0]
    found = runs["mean_max_cosine"]
    names = ("mean_max_cosine", "mcc", "f1", "dead_latents", "fvu")
    row = {f"best_{name}": float(best[name]) for name in names}
    row |= {f"mean_max_cosine_{how}": float(found.agg(how)) for how in ("min", "max", "mean")}
    row |= {"mean_max_cosine_sd": float(found.std())}
    row |= {"mean_max_cosine_start": float(runs["mean_max_cosine_start"].mean())}
    return DataFrame([row | {"share_above_99": float((found >= 0.99).mean()), "n_seeds": len(runs)}])
