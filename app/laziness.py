"""Kinds of neurons, keeping a share of them, the sparsity ladder: each one piece of work that fills a run folder."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from app.measurements import Dtype, FromHub, opened, remember_inputs
from data.progress import Progress
from data.runs import Run

Share = Annotated[float, Field(gt=0, le=1)]


class _Measured(FromHub):
    model: str = "smollm2-135m"
    """Name, GGUF file, folder or hub name of the language model."""
    corpus: str = "sotu-modern"
    """Name or path of the text."""
    n_tokens: PositiveInt = 4_000
    """Tokens read."""
    control: bool = True
    """Measure the same with random weights."""
    dtype: Dtype = "auto"
    """Number type of the forward pass; `auto` is bfloat16 on a processor that computes in it, else float32."""
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


class KindsConfig(_Measured):
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
    measure_keeping(KeepConfig.model_validate(_asked(run)), run, progress)


def measure_keeping(config: KeepConfig, run: Run, progress: Progress) -> None:
    """Tables `keeping, keeping_points, keeping_errors, keeping_documents`."""
    from probes import keeping
    from probes.stream import StreamConfig

    (model,), corpus = _opened(config, run, progress)
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
    config = KindsConfig.model_validate(_asked(run))
    from data.wordclass import default_tagger
    from probes import kinds as measured
    from probes.stream import StreamConfig

    (model,), corpus = _opened(config, run, progress)
    measured.measure(
        model,
        corpus,
        config.n_tokens,
        tagger=default_tagger(),
        layers=config.layers,
        control=config.control,
        config=StreamConfig(seed=config.seed),
        run=run,
        progress=progress,
    )


def ladder(run: Run, progress: Progress) -> None:
    """Measure `LadderConfig` into the run."""
    measure_ladder(LadderConfig.model_validate(_asked(run)), run, progress)


def measure_ladder(config: LadderConfig, run: Run, progress: Progress) -> None:
    """Tables `ladder`, `budget`, `supports` (the last two are arithmetic)."""
    from app import costs
    from probes import ladder as measured
    from probes.stream import StreamConfig

    run.save_tables(costs.tables())
    models, corpus = _opened(config, run, progress, config.others)
    stream = StreamConfig(seed=config.seed)
    measured.measure(models, corpus, config.n_tokens, control=config.control, config=stream, run=run, progress=progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: keep half and a tenth of the neurons of 1,000 tokens, by the token and always the same."""
    asked = KeepConfig(
        model=config.model,
        corpus=config.corpus,
        n_tokens=1_000,
        shares=(0.7, 0.5, 0.1),
        choices=("oracle", "static"),
        control=False,
        seed=config.seed,
    )
    measure_keeping(asked, run, progress)


def demo_ladder(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: the model's embedding and dense blocks on 2,040 tokens, beside random weights."""
    measure_ladder(
        LadderConfig(model=config.model, corpus=config.corpus, n_tokens=2_040, seed=config.seed), run, progress
    )


def _asked(run: Run) -> dict[str, Any]:
    return {k: v for k, v in run.settings.items() if k != "kind"}


def _opened(config: _Measured, run: Run, progress: Progress, others: tuple[str, ...] = ()) -> tuple[list[Any], Any]:
    progress(0, 1, f"opening {config.model}")
    from data import open_corpus

    models = [opened(config, progress, m) for m in (config.model, *others)]
    corpus = open_corpus(config.corpus)
    roles = ["model", *(f"model {i}" for i in range(2, len(models) + 1))]
    inputs = [(role, m.name, m.title, m.fingerprint) for role, m in zip(roles, models, strict=True)]
    remember_inputs(run, [*inputs, ("corpus", corpus.name, corpus.name, corpus.hash)])
    return models, corpus
