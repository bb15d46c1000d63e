"""Lazy neurons: how few feed-forward neurons a language model uses at a time, always beside its controls."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import pandas as pd
import torch
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables
from data.wordclass import Tagger
from probes import controls as controlled
from probes import stream
from probes.contexts import Contexts
from probes.describe import MEASURES, SHARES, describe, token_measures
from probes.firing import Concentration, Firing, InputMoments, SinkCount
from probes.kinds import layer_bands
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import N_BLOCKS, Accumulator, Observation, StreamConfig, TokenBatch
from probes.thresholds import Thresholds

Control = Literal["gaussian", "random_init", "shuffled"]
CONTROLS: tuple[Control, ...] = ("gaussian", "random_init", "shuffled")
GAUSSIAN_SAMPLES = 2_048

__all__ = ["CONTROLS", "MEASURES", "SHARES", "describe", "measure", "token_measures"]


def measure(
    model: LanguageModel,
    corpus: Corpus,
    n_tokens: int = 20_000,
    *,
    controls: Sequence[Control] = CONTROLS,
    control_tokens: int | None = None,
    tagger: Tagger | None = None,
    config: StreamConfig | None = None,
    engine: stream.Where = "local",
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Firing frequency and concentration of every layer's neurons, on real text and under each control.

    Controls: `gaussian` (inputs drawn with the mean and covariance of each layer's real FFN inputs), `random_init`
    (the same architecture as initialised, on the same text) and `shuffled` (FFN weights in random order, same text).
    `control_tokens` is how many tokens the last two read, by default as many; the tables say how many each read.

    Tables
        layers   layer, condition, sinks (`without` / `with` attention sinks and the first positions), measure
                 (`firing_frequency` and MEASURES), value, low, high (95%, documents resampled), n_tokens, n_blocks
        neurons  layer, neuron, condition, frequency (share of tokens on which it fires), n_tokens
        sinks    layer, condition, n_tokens, n_sinks, energy_share, n_first, energy_share_first
        kinds    layer, condition, kind (see `probes.kinds`), share, low, high, n_neurons, n_tokens
        thresholds   layer, condition, measure (see `probes.thresholds`), setting, value, low, high, n_tokens
        positions    layer, condition, position, first, frequency, low, high, n_tokens (not under `gaussian`)
        word_classes layer, condition, word_class, frequency, low, high, n_tokens (only with `tagger`)

    With `run`, tables are saved after every shard and a stopped measurement resumes at its last whole shard.
    `engine="ray"` reads on a cluster, see `probes.stream.run`.
    Raises ValueError for an unknown control, or a model without dense blocks or without a tokenizer.
    """
    _check(model, controls)
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens})
    found: dict[str, Tables] = {}
    steps = ["real", *controls]

    def told(step: str) -> Progress:
        return within(progress, steps.index(step) * n_tokens, n_tokens * len(steps), share=n_tokens)

    def keep(condition: str, tables: Mapping[str, DataFrame]) -> None:
        found[condition] = Tables(tables)
        if run is not None:
            run.save_tables(_together(found))

    inputs = InputMoments(model)  # kept even where no control needs them yet: a later call resumes with controls
    _pass(model, corpus, config, inputs, run, "real", told("real"), keep, tagger, engine)
    for control in controls:
        if control == "gaussian":
            keep(control, _gaussian(model, inputs, config.seed, told(control)))
        else:
            made = controlled.random_init if control == "random_init" else controlled.shuffled
            fewer = config.model_copy(update={"n_tokens": min(control_tokens or n_tokens, n_tokens)})
            _pass(made(model, config.seed), corpus, fewer, None, run, control, told(control), keep, tagger, engine)
    return _together(found)


def _check(model: LanguageModel, controls: Sequence[str]) -> None:
    for control in controls:
        if control not in CONTROLS:
            raise ValueError(f"'{control}' is not a control; choose among {', '.join(CONTROLS)}")
    if all(block.kind != "dense" for block in model.blocks):
        raise ValueError(f"{model.title} has no dense feed-forward block; its neurons are its experts'")


def _pass(
    model: LanguageModel,
    corpus: Corpus,
    config: StreamConfig,
    inputs: InputMoments | None,
    run: Run | None,
    condition: str,
    progress: Progress,
    keep: Callable[[str, Mapping[str, DataFrame]], None],
    tagger: Tagger | None,
    engine: stream.Where,
) -> None:
    held = Held(model)
    parts = held.parts() | ({"inputs": inputs} if inputs is not None else {})
    stream.run(
        model,
        corpus,
        parts,
        config,
        tagger=tagger,
        saved_in=run,
        stage=condition,
        engine=engine,
        progress=progress,
        after_shard=lambda _: keep(condition, held.tables() | held.text_tables()),
    )
    keep(condition, held.tables(finished=True) | held.text_tables())


class Held:
    """Everything that one pass measures."""

    def __init__(self, model: LanguageModel, stride: int = 10):
        self.firing, self.concentration = Firing(model), Concentration(model, stride)
        self.sinks, self.contexts, self.thresholds = SinkCount(model), Contexts(model, self.firing), Thresholds(model)

    def parts(self) -> dict[str, Accumulator]:
        """What the stream is given."""
        first: dict[str, Accumulator] = {"firing": self.firing, "concentration": self.concentration}
        return first | {"sinks": self.sinks, "contexts": self.contexts} | self.thresholds.parts()

    def tables(self, finished: bool = False) -> Tables:
        """What was found; the thresholds take a second and come only when the pass is `finished`."""
        fired = self.firing.tables()
        layers = pd.concat([fired.layers, self.concentration.tables().layers], ignore_index=True)
        found = Tables(layers=layers, neurons=fired.neurons, kinds=layer_bands(self.firing))
        return Tables(found | (self.thresholds.tables() if finished else {}))

    def text_tables(self) -> Tables:
        """What only text has: attention sinks, positions, word classes."""
        return Tables(self.sinks.tables() | self.contexts.tables())


def _gaussian(model: LanguageModel, inputs: InputMoments, seed: int, progress: Progress) -> Tables:
    """The same measures where each layer's FFN is fed Gaussian noise with its real inputs' mean and covariance."""
    held = Held(model, stride=1)
    held.thresholds.tails.stride = 32  # few samples, so more of them
    generator = torch.Generator().manual_seed(seed)
    position = torch.full((GAUSSIAN_SAMPLES,), 4)
    tokens = TokenBatch(
        ids=position[None], present=None, windows=(), position=position, block=torch.arange(GAUSSIAN_SAMPLES) % N_BLOCKS
    )
    for layer in range(model.n_layers):
        mean, covariance, count = inputs.moments(layer)
        if count:
            x = controlled.gaussian_like(mean, covariance, GAUSSIAN_SAMPLES, generator)
            seen = _through_block(model, layer, x.to(model.device, model.dtype), tokens)
            for part in (held.firing, held.concentration, *held.thresholds.parts().values()):
                part.update(seen)
        progress(layer + 1, model.n_layers, "Gaussian control")
    return held.tables(finished=True)


def _through_block(model: LanguageModel, layer: int, x: Tensor, tokens: TokenBatch) -> Observation:
    seen: dict[str, Tensor] = {"ffn_input": x}

    def keep(site: str) -> Callable[[Tensor], None]:
        return lambda tensor: seen.__setitem__(site, tensor[0])

    with torch.no_grad(), model.hooked([(layer, site, keep(site)) for site in ("gate", "neurons")]):
        output = model.feed_forward(layer)(x[None])[0]
    group = torch.full((len(x),), KEPT, device=output.device)
    return Observation(layer, seen, group, output.float().square().sum(dim=1), tokens)


def _together(found: dict[str, Tables]) -> Tables:
    names = dict.fromkeys(name for tables in found.values() for name in tables)
    return Tables(
        {
            name: pd.concat(
                [t[name].assign(condition=condition) for condition, t in found.items() if name in t], ignore_index=True
            )
            for name in names
        }
    )
