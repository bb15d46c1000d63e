"""The demo: a few real measurements, small enough for a laptop, in the order in which they make sense.

Each part fills the same run folder with its tables, under names of its own, in a process of one thread: at most a
minute of a core, five minutes together (the model's download not counted).  A part that fails says so and the others
still run.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from app.side_by_side import Piece, at_once, carried_out
from data.config import Config
from data.progress import Cancelled, Progress
from data.runs import Run


class DemoConfig(Config):
    """Settings of the demo."""

    n_tokens: PositiveInt = 20_000
    """Tokens of the built-in text that are shown to the language model."""
    control_tokens: PositiveInt = 4_000
    """Tokens that the controls with other weights read: a fifth of the time, for intervals of a few points."""
    model: str = "smollm2-135m"
    """The language model that is measured."""
    corpus: str = "sotu-modern"
    """The text it reads: State of the Union addresses after 1981."""
    seed: NonNegativeInt = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Part:
    """One measurement of the demo."""

    name: str
    title: str
    """What it measures, in words for the page."""
    measure: Callable[[Run, DemoConfig, Progress], object]
    makes: tuple[str, ...]
    """Tables it leaves; a part whose tables are all there and complete is not measured again."""
    share: float = 1.0
    """Its share of the time: seconds of one core, so that the time left is nearly true."""
    after: str = ""
    """Part that this one goes on from."""


def toy(run: Run, config: DemoConfig, progress: Progress) -> None:
    """Five features in two dimensions, then how much room a feature has as features become sparser."""
    from pandas import DataFrame

    from toymodels import ToyConfig, sweep, train

    pentagon = ToyConfig(n_features=5, d_hidden=2, feature_probability=0.05)
    toys = train(
        pentagon,
        seeds=range(config.seed, config.seed + 4),
        steps=2_000,
        progress=lambda done, total, note="": progress(0.3 * done / total, 1.0, "five features in two dimensions"),
    )
    best, kept = toys.table["best"].to_numpy().argmax(), toys.snapshots
    assert kept is not None
    final = float(toys.loss[best])
    rows = [
        (int(step), feature, *kept.W[i, best, :, feature].tolist(), final)
        for i, step in enumerate(kept.steps)
        for feature in range(pentagon.n_features)
    ]
    run.save_table("toy_directions", DataFrame(rows, columns=["step", "feature", "x", "y", "loss"]))

    base = ToyConfig(n_features=20, d_hidden=5, batch_size=512)
    swept = sweep(
        {"feature_probability": [1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01]},
        base=base,
        seeds=range(config.seed, config.seed + 3),
        steps=1_500,
        progress=lambda done, total, note="": progress(0.3 + 0.7 * done / total, 1.0, "a sweep over sparsity"),
    )
    run.save_table("toy_room", swept.table.assign(n_features=base.n_features, d_hidden=base.d_hidden))


def sparsity(run: Run, config: DemoConfig, progress: Progress) -> None:
    """Which neurons of the language model fire, and how the energy is spread."""
    _sparsity(run, config, (), progress)


def controls(run: Run, config: DemoConfig, progress: Progress) -> None:
    """The same under the controls: Gaussian inputs, random weights, shuffled weights."""
    _sparsity(run, config, ("gaussian", "random_init", "shuffled"), progress)


def _sparsity(run: Run, config: DemoConfig, beside: tuple[Any, ...], progress: Progress) -> None:
    from app.sparsity import SparsityConfig, measure

    asked = SparsityConfig(
        model=config.model,
        corpus=config.corpus,
        n_tokens=config.n_tokens,
        controls=beside,
        control_tokens=min(config.control_tokens, config.n_tokens),
        seed=config.seed,
    )
    measure(asked, run, progress)


def coherence(run: Run, config: DemoConfig, progress: Progress) -> None:
    """How far the features of one layer are from orthogonal, and from how many active ones they can be told apart."""
    from app import coherence

    coherence.demo(run, config, progress)


def keeping(run: Run, config: DemoConfig, progress: Progress) -> None:
    """What the language model loses when only its largest neurons work, or always the same ones."""
    from app import laziness

    laziness.demo(run, config, progress)


def rank(run: Run, config: DemoConfig, progress: Progress) -> None:
    """How fast the tokens of a text become one vector, and which part of the block prevents it."""
    from app import rank

    rank.demo(run, config, progress)


def memory(run: Run, config: DemoConfig, progress: Progress) -> None:
    """What makes neurons of four layers fire, and what they write."""
    from app import memory

    memory.demo(run, config, progress)


def saes(run: Run, config: DemoConfig, progress: Progress) -> None:
    """What a small sparse autoencoder keeps of a middle layer."""
    from app import saes

    saes.demo(run, config, progress)


def secret(run: Run, config: DemoConfig, progress: Progress) -> None:
    """Whether one dense layer hides a mixture of experts, on real activations and on Gaussian ones."""
    from app import secret

    secret.demo(run, config, progress)


def ladder(run: Run, config: DemoConfig, progress: Progress) -> None:
    """How large a share of its units each kind of block uses, and in how many combinations."""
    from app import laziness

    laziness.demo_ladder(run, config, progress)


def emergence(run: Run, config: DemoConfig, progress: Progress) -> None:
    """Where sparsity comes by itself: a two-layer network in four settings."""
    from app import experiments

    experiments.demo(run, config, progress)


def experts(run: Run, config: DemoConfig, progress: Progress) -> None:
    """Who is routed where in the mixture of experts that ships, and what that says."""
    from app import routing

    routing.demo(run, config, progress)


PARTS = (
    Part("toy", "Toy models: superposition", toy, ("toy_directions", "toy_room"), 4.0),
    Part("sparsity", "Sparsity of a language model", sparsity, ("layers", "neurons", "sinks"), 55.0),
    Part("controls", "Sparsity under its controls", controls, ("layers", "neurons", "sinks"), 42.0, "sparsity"),
    Part("keeping", "Keeping only the largest neurons", keeping, ("keeping", "keeping_points", "keeping_errors"), 22.0),
    Part("experts", "Experts of a mixture", experts, ("routing", "load", "specialization", "cells", "names"), 15.0),
    Part("coherence", "Coherence and recovery of one layer", coherence, ("coherence", "recovery"), 7.0),
    Part("ladder", "The sparsity ladder", ladder, ("ladder",), 12.0),
    Part("rank", "Rank: do tokens become one vector?", rank, ("rank_residuals", "rank_patterns"), 24.0),
    Part("memory", "Neurons as memories", memory, ("memory_agreement", "memory_neurons", "memory_values"), 33.0),
    Part("saes", "A sparse autoencoder", saes, ("sae", "sae_latents"), 43.0),
    Part("secret", "The experts inside a dense layer", secret, ("secret", "secret_ratios", "secret_gaps"), 23.0),
    Part("emergence", "Where sparsity emerges", emergence, ("emergence", "emergence_summary"), 4.0),
)


def measure(run: Run, progress: Progress) -> None:
    """Measure every part that is not complete yet, as many at a time as the machine has processors and memory for.

    What went wrong in any is raised together at the end.  Which parts are complete, with their seconds, stands in the
    table `parts`: part, title, state, seconds, error.
    """
    config = DemoConfig.model_validate(run.asked)
    told, parts = _told(run), {part.name: part for part in PARTS}
    complete = {name for name, part in parts.items() if _is_complete(run, part, told)}
    shares = {name: float(name in complete) for name in parts}
    whole = sum(part.share for part in PARTS)
    pieces = [
        Piece(part.name, partial(_measure, part, run.path, config), part.after)
        for part in PARTS
        if part.name not in complete
    ]
    began: dict[str, float] = {}
    try:
        with closing(carried_out(pieces, at_once())) as heard:
            for word in heard:
                part = parts[word.name]
                if word.state == "begun":
                    began[part.name] = time.monotonic()
                    told[part.name] = {"state": "running"}
                if word.state == "done":
                    told[part.name] = {"state": "done", "seconds": round(time.monotonic() - began[part.name], 1)}
                if word.state == "failed":
                    told[part.name] = {"state": "failed", "error": word.note}
                if word.state != "running":
                    _save(run, told)
                ended = word.state in ("done", "failed")
                shares[part.name] = max(shares[part.name], 1.0 if ended else word.share)
                note = part.title if ended else word.note or part.title
                progress(sum(parts[name].share * share for name, share in shares.items()), whole, note)
    except (Cancelled, KeyboardInterrupt):
        for name, one in told.items():
            told[name] = {"state": "cancelled"} if one["state"] == "running" else one
        _save(run, told)
        raise
    if failed := [f"{name}: {one['error']}" for name, one in told.items() if one["state"] == "failed"]:
        raise ValueError("; ".join(failed))


def _measure(part: Part, folder: Path, config: DemoConfig, progress: Progress) -> None:
    part.measure(Run(folder), config, progress)


def _is_complete(run: Run, part: Part, told: dict[str, dict[str, Any]]) -> bool:
    return told.get(part.name, {}).get("state") == "done" and set(part.makes) <= set(run.table_names())


def _told(run: Run) -> dict[str, dict[str, Any]]:
    if "parts" not in run.table_names():
        return {}
    records = run.table("parts").to_dict("records")
    return {str(r["part"]): {"state": r["state"], "seconds": r["seconds"], "error": r["error"]} for r in records}


def _save(run: Run, told: dict[str, dict[str, Any]]) -> None:
    from pandas import DataFrame

    rows = [
        (
            p.name,
            p.title,
            *(told.get(p.name, {}).get(k, d) for k, d in (("state", "waiting"), ("seconds", None), ("error", ""))),
        )
        for p in PARTS
    ]
    frame = DataFrame(rows, columns=["part", "title", "state", "seconds", "error"])
    run.save_table("parts", frame.astype({"seconds": "float64"}))
