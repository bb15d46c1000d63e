"""A sparse autoencoder on a language model's activations as one piece of work that fills a run folder."""

from typing import Any

from app.measurements import Dtype, OnText, model_and_text
from data.progress import Progress, within
from data.runs import Run
from probes.saes_training import SaeConfig


class SaeRun(OnText):
    """Settings of `probe.sae`."""

    sae: SaeConfig = SaeConfig()
    """Site, size and training of the autoencoder; for a published one, site, layer and tokens."""
    source: str | None = None
    """Folder or release of a published autoencoder; None trains one."""
    sae_id: str | None = None
    """Id within the release."""
    control: bool = True
    """Measure principal components and an autoencoder on random weights beside it."""
    save: str | None = None
    """Folder that gets the autoencoder in sae-lens's format."""
    dtype: Dtype = "auto"
    """Number type of the model's forward pass."""


def work(run: Run, progress: Progress) -> None:
    """Measure `SaeRun` into the run."""
    measure(SaeRun.model_validate(run.asked), run, progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: 1,152 latents on a middle layer of 3,060 tokens, 120 steps."""
    sae = SaeConfig(d_sae=1_152, n_tokens=min(config.n_tokens, 3_060), steps=120, batch_size=256, seed=config.seed)
    measure(SaeRun(model=config.model, corpus=config.corpus, sae=sae), run, progress)


def measure(asked: SaeRun, run: Run, progress: Progress) -> None:
    """Tables `sae, sae_latents, sae_training`, and the weights as `sae.safetensors`."""
    from probes import saes

    sae = saes.load(asked.source, asked.sae_id) if asked.source else None
    model, corpus = model_and_text(asked, run, within(progress, 0, 20))
    tables, made = saes.measure(
        model,
        corpus,
        asked.sae,
        sae=sae,
        control=asked.control,
        progress=within(progress, 1, 20, share=19),
    )
    run.save_tables(tables)
    weights = made["real"].model.state_dict()
    run.save_tensors("sae", {name: value.float().cpu().numpy() for name, value in weights.items()})
    if asked.save:
        made["real"].save(asked.save)
