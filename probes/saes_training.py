"""Sparse autoencoders on a language model's activations, through sae-lens: train a small one, load a published one.

    x^ = W_dec f + b,   f = activation(W_enc (x - b) + b_enc),   few of the d_sae latents f active for a token

What an autoencoder is worth is measured in `probes.saes`, beside one of the same size on a model with random
weights and the principal components of equal number.
Sources: Gao et al. 2024, 'Scaling and evaluating sparse autoencoders' (TopK); Bussmann et al. 2024 (BatchTopK);
Rajamanoharan et al. 2024 (JumpReLU); sae-lens (training and file format).
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pandas import DataFrame
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from data.config import Config
from data.progress import Progress, silent
from probes.activations import Activations

if TYPE_CHECKING:
    from sae_lens import TrainingSAE


class SaeError(ValueError):
    """An autoencoder cannot be made or opened; the message is one sentence."""


class SaeConfig(Config):
    """Where an autoencoder reads, how large it is, and how it is trained."""

    site: str = "block_output"
    """Site of the model, one vector a token."""
    layer: NonNegativeInt | None = None
    """Layer; None takes the middle one."""
    architecture: Literal["topk", "batchtopk", "jumprelu", "standard"] = "topk"
    """Which autoencoder of sae-lens: k largest, k largest on average, learned thresholds, L1 penalty."""
    d_sae: PositiveInt | None = None
    """Latents; None takes four times the site's width."""
    k: PositiveInt = 32
    """Active latents (`topk`, and on average `batchtopk`)."""
    sparsity: NonNegativeFloat = 1.0
    """Weight of the L0 (`jumprelu`) or L1 (`standard`) penalty."""
    n_tokens: PositiveInt = 20_000
    """Tokens read; a fifth of their documents is kept for measuring."""
    steps: PositiveInt = 1_000
    """Adam steps."""
    batch_size: PositiveInt = 512
    """Tokens a step, drawn from the cached ones in random order, again and again."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's step length; it falls linearly to 0 over the last fifth."""
    seed: NonNegativeInt = 0
    """Order of documents and rows, initial weights, the control's weights."""


@dataclass(frozen=True, eq=False)
class Sae:
    """An autoencoder as it is used: any architecture of sae-lens."""

    model: Any
    """The sae-lens object."""
    name: str = "sae"
    """What tables and figures call it."""

    @property
    def d_in(self) -> int:
        """Width of the vectors it reads."""
        return self.model.cfg.d_in

    @property
    def d_sae(self) -> int:
        """Latents."""
        return self.model.cfg.d_sae

    @property
    def W_dec(self) -> Float[Tensor, "d_sae d_model"]:
        """Decoder as sae-lens keeps it."""
        return self.model.W_dec.detach()

    @property
    def decoder(self) -> Float[Tensor, "d_model d_sae"]:
        """Decoder with a column a latent: a dictionary of the residual stream for `probes.coherence`."""
        return self.W_dec.T

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_sae"]:
        """Latents of these vectors."""
        return self.model.encode(x.to(self.W_dec.dtype))

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_in"]:
        """What is left of these vectors after the latents; same type and device as `x`."""
        rows = x.to(self.W_dec.device, self.W_dec.dtype)
        return self.model.decode(self.model.encode(rows)).to(x.device, x.dtype)

    def save(self, folder: Path | str) -> Path:
        """Write `cfg.json` and `sae_weights.safetensors` as sae-lens reads them; returns the folder."""
        self.model.save_model(folder)
        return Path(folder)


def load(source: Path | str, sae_id: str | None = None, *, device: str = "cpu") -> Sae:
    """An autoencoder from a folder in sae-lens's format, or by release and id from the hub.

    No pickle is read from a folder.  Raises SaeError with one sentence when it is not there or cannot be reached.
    """
    from sae_lens import SAE

    path = Path(source)
    if sae_id is None or path.is_dir():
        if not (path / "cfg.json").is_file():
            said = "has no cfg.json" if path.is_dir() else "is no folder; a release needs an id as well (sae_id=)"
            raise SaeError(f"'{source}' {said}; name a folder saved with `save`, or a release and its id")
        try:
            return Sae(SAE.load_from_disk(path, device=device).eval(), path.name)
        except Exception as error:
            raise SaeError(f"the autoencoder in {path} cannot be read ({_reason(error)})") from error
    try:
        return Sae(SAE.from_pretrained(str(source), sae_id, device=device).eval(), f"{source}/{sae_id}")
    except ValueError as error:  # an unknown release or id; sae-lens names those there are
        raise SaeError(_reason(error)) from error
    except Exception as error:
        raise SaeError(
            f"'{source}' ({sae_id}) is neither in the local cache nor reachable on the hub; check the network, or name "
            "a folder with cfg.json and sae_weights.safetensors"
        ) from error


def train(
    rows: Activations, config: SaeConfig, *, name: str = "sae", progress: Progress = silent
) -> tuple[Sae, DataFrame]:
    """Train one through sae-lens's trainer on the rows that are not held out.

    Rows are scaled to a mean square of 1 a coordinate and the decoder's bias begins at their mean; both are folded into
    the weights at the end, so that the autoencoder reads raw activations.  The frame has `step, fvu, l0`, each the mean
    over the batches since the row before; it is the course of training, not a result.
    """
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    index = np.flatnonzero(~rows.held_out)
    if len(index) < config.batch_size:
        raise SaeError(
            f"{len(index)} tokens are there to train on, fewer than one batch of {config.batch_size}; read more text"
        )
    mean, scale = _moments(rows, index)
    with torch.random.fork_rng(devices=[]):  # sae-lens draws its start from the global generator
        torch.manual_seed(config.seed)
        sae = _autoencoder(config, rows.width)
    sae.b_dec.data.copy_(mean * scale)
    settings = SAETrainerConfig(
        total_training_samples=config.steps * config.batch_size,
        train_batch_size_samples=config.batch_size,
        lr=config.learning_rate,
        lr_end=config.learning_rate,
        lr_decay_steps=config.steps // 5,
        dead_feature_window=max(config.steps // 10, 1),
    )
    trainer: Any = SAETrainer(cfg=settings, sae=sae, data_provider=iter(()))
    rng, course, held = np.random.default_rng(config.seed), [], []
    for step in range(config.steps):
        x = rows.take(np.sort(rng.choice(index, config.batch_size, replace=False))) * scale
        out = trainer.step(x)
        trainer.n_training_steps += 1
        with torch.no_grad():
            fvu = (out.sae_out - x).square().sum() / (x - mean * scale).square().sum()
            held.append((float(fvu), float((out.feature_acts.to_dense() != 0).float().sum(1).mean())))
        if (step + 1) % max(config.steps // 50, 1) == 0 or step + 1 == config.steps:
            course.append((step + 1, *np.mean(held, axis=0).tolist()))
            held = []
            progress(step + 1, config.steps, f"{name}: fraction unexplained {course[-1][1]:.3f}")
    sae.fold_activation_norm_scaling_factor(scale)
    return Sae(_as_used(sae), name), DataFrame(course, columns=["step", "fvu", "l0"])


def _moments(rows: Activations, index: np.ndarray) -> tuple[Tensor, float]:
    """Mean of the rows, and the factor that brings the mean square about it to 1 a coordinate."""
    total, square = torch.zeros(rows.width, dtype=torch.float64), 0.0
    for _, x in rows.chunks(index):
        total += x.double().sum(dim=0)
    mean = total / len(index)
    for _, x in rows.chunks(index):
        square += float((x.double() - mean).square().sum())
    if square == 0:
        raise SaeError("every token has the same activation here; there is nothing to encode")
    return mean.float(), float((len(index) * rows.width / square) ** 0.5)


def _autoencoder(config: SaeConfig, width: int) -> "TrainingSAE[Any]":
    from sae_lens.registry import get_sae_training_class

    shape: dict[str, Any] = {"d_in": width, "d_sae": config.d_sae or 4 * width}
    if config.architecture in ("topk", "batchtopk") and config.k > shape["d_sae"]:
        raise SaeError(f"k={config.k} active latents exceed d_sae={shape['d_sae']}; choose k <= d_sae")
    of_its_own: dict[str, dict[str, float]] = {
        "topk": {"k": config.k},
        "batchtopk": {"k": float(config.k)},
        "jumprelu": {"l0_coefficient": config.sparsity},
        "standard": {"l1_coefficient": config.sparsity},
    }
    autoencoder, settings = get_sae_training_class(config.architecture)
    return autoencoder(settings(**shape, **of_its_own[config.architecture]))


def _as_used(sae: "TrainingSAE[Any]") -> Any:
    """The autoencoder as a reader of its file gets it, so that what is measured is what is kept."""
    from sae_lens import SAE

    with TemporaryDirectory(prefix=".sae-") as place:
        sae.save_inference_model(place)
        return SAE.load_from_disk(place).eval()


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
