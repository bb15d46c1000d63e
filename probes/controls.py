"""What a measure must beat: the same model with random weights, with shuffled weights, and Gaussian inputs."""

import torch
from jaxtyping import Float
from torch import Tensor

from probes.models import LanguageModel
from probes.models.door import rebuilt


def random_init(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """The architecture as its class initialises it: what the shape of the network alone gives."""
    return rebuilt(model, None, f"{model.title}, random weights", seed=seed)


def shuffled(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """Every matrix of the feed-forward blocks with its own entries in random order; all else as trained.

    Keeps each matrix's distribution of weights and destroys its structure.
    """
    generator = torch.Generator().manual_seed(seed)
    inside = {
        parameter.untyped_storage().data_ptr()
        for layer in range(model.n_layers)
        for parameter in model.feed_forward_parameters(layer)
    }
    weights = {
        name: _permuted(w, generator) if w.ndim > 1 and w.untyped_storage().data_ptr() in inside else w
        for name, w in model.plain_weights().items()
    }
    return rebuilt(model, weights, f"{model.title}, FFN weights shuffled")


def gaussian_like(
    mean: Float[Tensor, " d"], covariance: Float[Tensor, "d d"], n_samples: int, generator: torch.Generator
) -> Float[Tensor, "n_samples d"]:
    """Samples of a Gaussian with this mean and covariance, in float32.

    The square root comes from the eigenvalues, negative rounding errors set to 0, so a singular covariance is fine.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    root = vectors * values.clamp(min=0).sqrt()
    noise = torch.randn(n_samples, len(mean), generator=generator, dtype=torch.float32)
    return noise @ root.T.float() + mean.float()


def _permuted(weight: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(weight.numel(), generator=generator)
    return weight.flatten()[order.to(weight.device)].view_as(weight)
