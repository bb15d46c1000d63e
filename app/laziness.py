"""Kinds of neurons, keeping a share of them, the sparsity ladder: each one piece of work that fills a run folder."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from app.measurements import OnText, Spread, as_input, model_and_text, opened, remember_inputs
from data.progress import Progress
from data.runs import Run

Share = Annotated[float, Field(gt=0, le=1)]


class _Measured(OnText):
    n_tokens: PositiveInt = 4_000
    """Tokens read."""
    control: bool = True
    """Measure the same with random weights."""
    seed: NonNegativeInt = 0
    """Order of the documents, random weights, random choices."""


class KeepConfig(_Measured):
    """Settings of `probe.keep`."""

    shares: tuple[Share, ...] = Field((0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1), min_length=1)
    """Shares of the neurons that are kept."""
    choices: tuple[Literal["oracle", "threshold", "static", "random"], ...] = (
        "oracle",
        "threshold",
        "static",
        "random",
    )
    """How they are chosen."""
    one_layer: tuple[Share, ...] = ()
    """Shares at which each block is also edited alone."""


class KindsConfig(_Measured, Spread):
    """Settings of `probe.kinds`."""

    n_tokens: PositiveInt = 20_000
    """Tokens read."""
    layers: tuple[NonNegativeInt, ...] | None = None
    """Layers whose neurons are tested; None: an early, a middle and a late one."""


class LadderConfig(_Measured):
    """Settings of `probe.ladder`."""

    model: str = "smollm2-135m"
    """The first model."""
    others: tuple[str, ...] = ()
    """Further models on the same axes."""


def keep(run: Run, progress: Progress) -> None:
    """Measure `KeepConfig` into the run."""
    measure_keeping(KeepConfig.model_validate(run.asked), run, progress)


def measure_keeping(config: KeepConfig, run: Run, progress: Progress) -> None:
    """Tables `keeping, keeping_points, keeping_errors, keeping_documents`."""
    model, corpus = model_and_text(config, run, progress)
    from probes import keeping
    from probes.stream import StreamConfig

    keeping.measure(
        model,
        corpus,
        config.n_tokens,
        shares=config.shares,
        choices=config.choices,
        one_layer=config.one_layer,
        control=config.control,
        config=StreamConfig(seed=config.seed),
        run=run,
        progress=progress,
    )


def kinds(run: Run, progress: Progress) -> None:
    """Tables `neuron_classes, neuron_tokens, class_summary, untestable`."""
    config = KindsConfig.model_validate(run.asked)
    model, corpus = model_and_text(config, run, progress)
    from data.wordclass import default_tagger
    from probes import kinds as measured
    from probes.stream import StreamConfig

    measured.measure(
        model,
        corpus,
        config.n_tokens,
        tagger=default_tagger(),
        layers=config.layers,
        control=config.control,
        config=StreamConfig(seed=config.seed),
        engine=config.engine,
        run=run,
        progress=progress,
    )


def ladder(run: Run, progress: Progress) -> None:
    """Measure `LadderConfig` into the run."""
    measure_ladder(LadderConfig.model_validate(run.asked), run, progress)


def measure_ladder(config: LadderConfig, run: Run, progress: Progress) -> None:
    """Tables `ladder`, `budget`, `supports` (the last two are arithmetic)."""
    from app import costs

    run.save_tables(costs.tables())
    first, corpus = model_and_text(config, run, progress)
    others = [opened(config, progress, name) for name in config.others]
    remember_inputs(run, [as_input(f"model {place}", model) for place, model in enumerate(others, start=2)])
    from probes import ladder as measured
    from probes.stream import StreamConfig

    models = [first, *others]
    stream = StreamConfig(seed=config.seed)
    measured.measure(models, corpus, config.n_tokens, control=config.control, config=stream, run=run, progress=progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: keep half and a tenth of the neurons of 1,000 tokens, by the token and always the same."""
    asked = KeepConfig(
        model=config.model,
        corpus=config.corpus,
        n_tokens=min(config.n_tokens, 1_000),
        shares=(0.7, 0.5, 0.1),
        choices=("oracle", "static"),
        control=False,
        seed=config.seed,
    )
    measure_keeping(asked, run, progress)


def demo_ladder(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: the model's embedding and dense blocks on 2,040 tokens, beside random weights."""
    n_tokens = min(config.n_tokens, 2_040)
    asked = LadderConfig(model=config.model, corpus=config.corpus, n_tokens=n_tokens, seed=config.seed)
    measure_ladder(asked, run, progress)
