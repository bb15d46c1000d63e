"""Routers as dictionaries, and planted clusters that a router must tell apart: works that each fill a run folder."""

from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from app.measurements import FromHub
from data.config import Config, Probability
from data.progress import Progress
from data.runs import Run


class RouterConfig(FromHub):
    """Settings of `probe.router`."""

    model: str
    """Name, folder or GGUF file of a model with mixtures of experts."""
    corpus: str = "sotu-modern"
    """Name or path of the text whose tokens are routed."""
    n_tokens: PositiveInt = 4_000
    """Text tokens read."""
    layers: tuple[NonNegativeInt, ...] = ()
    """Layers; empty: all that route."""
    trials: PositiveInt = 200
    """Codes planted on uniform and on routed supports."""
    seed: NonNegativeInt = 0
    """Order of the documents, random router, planted codes."""


class SeparabilityConfig(Config):
    """Settings of `probe.separability`."""

    d_model: PositiveInt = 64
    """Dimensions."""
    n_features: PositiveInt = 256
    """Directions of the planted dictionary."""
    n_clusters: Annotated[int, Field(ge=2)] = 16
    """Clusters, each with its own pool of features."""
    ks: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    """Active features of a token."""
    shared: tuple[Probability, ...] = (0.0, 0.25, 0.5, 0.75, 0.9)
    """Share of squared length that lies in one common direction: what raises mu."""
    spread: PositiveInt = 2
    """A cluster's pool holds `spread` * k features."""
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Expected length of the noise; the least magnitude is 1."""
    n_tokens: Annotated[int, Field(ge=4)] = 2_000
    """Tokens of a cell; half of them teach the router."""
    seed: NonNegativeInt = 0
    """Dictionary, tokens and noise."""

    @model_validator(mode="after")
    def _pools_fit(self) -> Self:
        if self.ks and self.spread * max(self.ks) > self.n_features:
            raise ValueError(
                f"k={max(self.ks)} with pools of {self.spread}k features needs "
                f"n_features >= {self.spread * max(self.ks)}"
            )
        return self


def read_routers(run: Run, progress: Progress) -> None:
    """Measure `RouterConfig` into the run: the tables `router_reading, router_recovery, router_overlap`."""
    from data import open_corpus
    from probes import open_model, routed_supports
    from probes.stream import StreamConfig

    config = RouterConfig.model_validate(run.asked)
    progress(0, 1, f"opening {config.model}")
    tables = routed_supports.measure(
        open_model(
            config.model,
            device_map=config.device_map,
            trust_remote_code=config.trust_remote_code,
            progress=progress,
        ),
        open_corpus(config.corpus),
        StreamConfig(n_tokens=config.n_tokens, seed=config.seed),
        layers=config.layers or None,
        trials=config.trials,
        seed=config.seed,
        run=run,
        progress=progress,
    )
    run.save_tables(tables)


def separate(run: Run, progress: Progress) -> None:
    """Measure `SeparabilityConfig` into the run: the table `separability`."""
    from probes import router_reading

    config = SeparabilityConfig.model_validate(run.asked)
    finished = run.table("separability") if "separability" in run.table_names() else None

    def keep(rows: Any) -> None:
        run.save_table("separability", rows)

    keep(router_reading.separability(**config.model_dump(), progress=progress, finished=finished, keep=keep))
