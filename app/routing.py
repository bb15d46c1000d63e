"""Who is routed where, as one piece of work that fills a run folder."""

from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from app.measurements import Dtype, Spread, model_and_text
from data.progress import Progress
from data.runs import Run

MODEL = "tinymoe"
"""The mixture of experts that ships with the installation."""


class RoutingConfig(Spread):
    """Settings of `probe.experts`."""

    model: str = MODEL
    """Name, folder or hub name of the language model."""
    secret_experts: str | None = None
    """Run of `probe.secret` whose students become the experts of a dense model."""
    n_tokens: PositiveInt = 100_000
    """Tokens routed."""
    controls: tuple[Literal["random_init", "random_directions", "hash"], ...] = (
        "random_init",
        "random_directions",
        "hash",
    )
    """Controls measured beside the model."""
    control_tokens: PositiveInt | None = None
    """Tokens that the model with random weights reads; None: as many."""
    word_classes: bool = True
    """Tag the text."""
    labels_csv: str | None = None
    """CSV file with a column `word` or `document` and one of labels."""
    labels_column: str = "label"
    """Its column of labels."""
    labels_regex: str | None = None
    """Regular expression; what it matches gets the name of its group, else `match`."""
    metadata: tuple[str, ...] = ()
    """Columns of the corpus' documents whose values are labels too."""
    permutations: PositiveInt = 100
    """Draws of each null."""
    association_tokens: PositiveInt = 200_000
    """Tokens of each layer that specialization is measured on, at most."""
    dtype: Dtype = "float32"
    """Number type of the forward pass; routing is a choice, and rounding moves choices."""
    seed: NonNegativeInt = 0
    """Order of the documents, random weights and directions, permutations."""


def work(run: Run, progress: Progress) -> None:
    """Measure `RoutingConfig` into the run."""
    measure(RoutingConfig.model_validate(run.asked), run, progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: 10,000 tokens through the shipped mixture."""
    n_tokens = min(config.n_tokens, 10_000)
    asked = RoutingConfig(
        corpus=config.corpus, n_tokens=n_tokens, control_tokens=config.control_tokens, permutations=50, seed=config.seed
    )
    measure(asked, run, progress, role="mixture")


def measure(config: RoutingConfig, run: Run, progress: Progress, role: str = "model") -> None:
    """Open model and text, note their hashes as inputs, and fill the tables of `probes.routing.measure`."""
    labels = own_labels(config)  # a wrong label file is told before a model is opened
    model, corpus = model_and_text(config, run, progress, role=role, secret_experts=config.secret_experts)
    from probes import routing
    from probes.stream import StreamConfig

    routing.measure(
        model,
        corpus,
        config.n_tokens,
        controls=config.controls,
        control_tokens=config.control_tokens,
        tagger="default" if config.word_classes else None,
        labels=labels,
        metadata=config.metadata,
        n_permutations=config.permutations,
        association_tokens=config.association_tokens,
        config=StreamConfig(seed=config.seed, shard_tokens=min(65_536, max(2_048, config.n_tokens // 8))),
        engine=config.engine,
        run=run,
        progress=progress,
    )


def own_labels(config: RoutingConfig) -> dict[str, Any]:
    """The user's own labellers by name: the column of the CSV file, `regex`."""
    from data.labels import RegexTagger, read_labels

    found: dict[str, Any] = {}
    if config.labels_csv is not None:
        found[config.labels_column] = read_labels(config.labels_csv, config.labels_column)
    if config.labels_regex is not None:
        found["regex"] = RegexTagger(config.labels_regex)
    return found
