"""Neurons as memories as one piece of work that fills a run folder, and their cards as HTML."""

import html
from typing import Any, Literal

from pandas import DataFrame
from pydantic import NonNegativeInt, PositiveInt

from app.measurements import Dtype, Spread, model_and_text
from data.progress import Progress
from data.runs import Run


class MemoryConfig(Spread):
    """Settings of `probe.memory`."""

    n_tokens: PositiveInt = 20_000
    """Tokens read."""
    layers: tuple[NonNegativeInt, ...] = ()
    """Layers whose neurons are read; none named: all."""
    neurons: tuple[NonNegativeInt, ...] = ()
    """Neurons of each layer that get a card; none named: `cards` of them at random."""
    cards: PositiveInt = 32
    """Cards for each layer where no neurons are named; every neuron that agrees gets one besides."""
    triggers: PositiveInt = 10
    """Strongest triggers kept for each neuron and sign."""
    controls: tuple[Literal["random_init", "shuffled"], ...] = ("random_init",)
    """Controls measured beside the model."""
    dtype: Dtype = "auto"
    """Number type of the forward pass; values are read in float32."""
    seed: NonNegativeInt = 0
    """Order of the documents, random weights, choice of the cards, random pairings."""


def work(run: Run, progress: Progress) -> None:
    """Measure `MemoryConfig` into the run."""
    config = MemoryConfig.model_validate(run.asked)
    measure(config, run, progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: four layers on 4,080 tokens."""
    n_tokens = min(config.n_tokens, 4_080)
    asked = MemoryConfig(model=config.model, corpus=config.corpus, n_tokens=n_tokens, cards=16, seed=config.seed)
    measure(asked, run, progress, n_layers=4)


def measure(config: MemoryConfig, run: Run, progress: Progress, n_layers: int | None = None) -> None:
    """Open model and text, note their hashes, and fill the tables `memory_*`.

    `n_layers` reads so many layers at even distances where none are named.
    """
    model, corpus = model_and_text(config, run, progress)
    from probes import memory
    from probes.stream import StreamConfig

    layers = config.layers or None
    if n_layers is not None and layers is None:
        layers = tuple(sorted({(2 * i + 1) * model.n_layers // (2 * n_layers) for i in range(n_layers)}))
    memory.measure(
        model,
        corpus,
        config.n_tokens,
        layers=layers,
        neurons=config.neurons or config.cards,
        k=config.triggers,
        controls=config.controls,
        config=StreamConfig(seed=config.seed, shard_tokens=min(8_192, max(2_048, config.n_tokens // 8))),
        engine=config.engine,
        run=run,
        progress=progress,
    )


def card(triggers: DataFrame) -> str:
    """The triggers of one neuron and sign as an HTML list: each in its text, the token marked, all text escaped.

    Line breaks are drawn as ⏎, so that a trigger stays on one line; text of another writing direction is isolated.
    """
    lines = []
    for row in triggers.sort_values("rank").itertuples():
        before, token, after = (_shown(str(text)) for text in (row.before, row.token, row.after))
        where = f"{_shown(str(row.document))}, token {row.position:,}"
        lines.append(
            f'<li style="margin-bottom:0.5em"><span style="opacity:0.75">{row.activation:+.3g}</span> '
            f'<bdi>{before}<mark style="padding:0 0.15em;border-radius:0.2em">{token}</mark>{after}</bdi> '
            f'<span style="opacity:0.6;font-size:0.85em">({where})</span></li>'
        )
    return f'<ol style="padding-left:1.5em">{"".join(lines)}</ol>'


def _shown(text: str) -> str:
    one_line = text.replace("\r\n", "⏎").replace("\n", "⏎").replace("\r", "⏎")
    return html.escape("".join(c if c.isprintable() else "�" for c in one_line))
