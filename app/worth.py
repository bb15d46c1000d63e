"""What experts are worth, as one piece of work that fills a run folder."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from app.measurements import Dtype, OnText, model_and_text
from data.progress import Progress
from data.runs import Run

Replacement = Literal["zero", "mean", "affine", "random"]


class WorthConfig(OnText):
    """Settings of `probe.worth`."""

    model: str = "tinymoe"
    """Name, folder or hub name of the mixture of experts."""
    secret_experts: str | None = None
    """Run of `probe.secret` whose students become the experts of a dense model."""
    n_tokens: PositiveInt = 8_000
    """Tokens read: half of the documents to fit on, half to score on."""
    fit_tokens: PositiveInt | None = None
    """Tokens that means and affine maps are fitted on; None: half of `n_tokens`."""
    layers: tuple[NonNegativeInt, ...] | None = None
    """Layers whose experts are replaced; None: all that have experts."""
    replace: tuple[Replacement, ...] = ("zero", "mean", "affine", "random")
    """What stands in for an expert."""
    curves: bool = True
    """Prune and merge experts, and use fewer of them for a token."""
    word_classes: bool = True
    """Tag the text: damage by word class."""
    dtype: Dtype = "float32"
    """Number type of the forward pass."""
    seed: NonNegativeInt = 0
    """Order of the documents, random stand-ins and weights."""


def work(run: Run, progress: Progress) -> None:
    """Measure `WorthConfig` into the run."""
    config = WorthConfig.model_validate(run.asked)
    model, corpus = model_and_text(config, run, progress, secret_experts=config.secret_experts)
    from probes import experts

    experts.measure(
        model,
        corpus,
        layers=config.layers,
        replace=config.replace,
        n_tokens=config.n_tokens,
        fit_tokens=config.fit_tokens,
        curves=config.curves,
        tagger="default" if config.word_classes else None,
        seed=config.seed,
        run=run,
        progress=progress,
    )
