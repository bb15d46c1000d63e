"""Where activation sparsity emerges, and where it does not: a two-layer ReLU network in four settings.

    h = relu(W1 x + b1),   logits = W2 h + b2,   cross-entropy, Adam

Inputs whose mean is positive, and labels that nothing can be learned from, drive hidden units to zero: every active
unit only adds error, and a common direction of the inputs lets one step of W1 and b1 switch off a unit for all of them
at once.  Give the same network labels that can be learned, or inputs without a common direction, and most stay on.
Sources: Li et al. 2023, 'The Lazy Neuron Phenomenon' (section 3, the argument at initialisation); Glorot & Bengio and
PyTorch's default uniform start (`nn.Linear`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from data import Config, Progress, Tables, silent
from data.progress import within

Inputs = Literal["uniform", "relu_gaussian", "gaussian"]
Labels = Literal["random", "learnable"]
MEASURED = 2_048
"""Fresh inputs of the same law on which hidden units are counted, the same at every step of a seed."""


class EmergenceConfig(Config):
    """The network, its data and its training."""

    inputs: Inputs = "uniform"
    """Law of each coordinate: uniform on [0, 1], max(0, g) or g with g standard Gaussian."""
    labels: Labels = "random"
    """`random`: drawn apart from the inputs; `learnable`: the largest coordinate of a random linear map of it."""
    d_in: PositiveInt = 64
    """Coordinates of an input."""
    d_hidden: PositiveInt = 128
    """Hidden units."""
    n_classes: PositiveInt = 50
    """Labels."""
    n_samples: PositiveInt | None = None
    """Size of the training set; None draws fresh samples at every step, so that nothing can be memorised."""
    batch_size: PositiveInt = 128
    """Samples a step."""
    steps: PositiveInt = 300
    """Adam steps."""
    learning_rate: PositiveFloat = 2e-3
    """Adam's step length."""
    snapshots: PositiveInt = 30
    """Times at which hidden units are counted, besides the start."""


FOUR: dict[str, EmergenceConfig] = {
    "uniform inputs, random labels": EmergenceConfig(),
    "ReLU-Gaussian inputs, random labels": EmergenceConfig(inputs="relu_gaussian"),
    "Gaussian inputs, random labels": EmergenceConfig(inputs="gaussian"),
    "uniform inputs, learnable labels": EmergenceConfig(labels="learnable"),
}
"""The four settings: inputs lose their positive mean, or labels become learnable; all else is equal.

With fresh samples, 64 inputs, 128 hidden units and 50 classes the first, third and fourth end near the values known
from an experiment whose widths are not recorded (.03, .44, .70); the second (.28 there) ends lower.
"""

FINITE = EmergenceConfig(d_in=50, n_classes=20, n_samples=4_096, batch_size=32, learning_rate=5e-3)
"""A training set that is read more than twice: noise begins to be memorised, units stay on for it, and ReLU-Gaussian
inputs end near .28."""
FOUR_FINITE: dict[str, EmergenceConfig] = {
    name: FINITE.model_copy(update={"inputs": config.inputs, "labels": config.labels}) for name, config in FOUR.items()
}
"""The four settings with that training set."""


def run(
    settings: Mapping[str, EmergenceConfig] | None = None,
    *,
    seeds: int | Sequence[int] = 3,
    progress: Progress = silent,
) -> Tables:
    """Train every setting from every seed and count who is active, from before the first step to after the last.

    Tables
        emergence          setting, inputs, labels, seed, step, nonzero (share of nonzero hidden activations on fresh
                           inputs), dead (share of hidden units that are 0 on all of them), loss (nats, on the batch)
        emergence_summary  setting, inputs, labels, start (mean nonzero share at step 0: the control), end, low, high
                           (mean, least and greatest over seeds after the last step), sd, dead, chance (ln of the
                           number of classes, the loss of a guess), loss, n_seeds, n_inputs, steps
    """
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    given = FOUR if settings is None else settings
    if not given or not chosen:
        raise ValueError("nothing to train: give at least one setting and one seed")
    parts: list[DataFrame] = []
    for name, config in given.items():
        for seed in chosen:
            done = within(progress, len(parts), len(given) * len(chosen))
            frame = train(config, seed=seed, progress=done)
            frame.insert(0, "setting", name)
            parts.append(frame)
    course = pd.concat(parts, ignore_index=True)
    return Tables({"emergence": course, "emergence_summary": _summary(course, given)})


def dependence(
    varied: Mapping[str, Sequence[int | float | None]] | None = None,
    *,
    base: EmergenceConfig | None = None,
    seeds: int | Sequence[int] = 3,
    progress: Progress = silent,
) -> DataFrame:
    """The four settings again with one hyperparameter at a time moved away from `base`.

    Columns `varied, value, setting, inputs, labels, end, low, high, n_seeds`; `value` is text, `fresh` for samples
    without end.  By default: width, classes, learning rate, size of the training set.
    """
    base = base or EmergenceConfig()
    moved = varied or {
        "d_in": (16, 64, 256),
        "d_hidden": (32, 128, 512),
        "n_classes": (2, 10, 50),
        "n_samples": (1024, 8192, None),
        "learning_rate": (1e-3, 2e-3, 5e-3),
    }
    total = sum(len(values) for values in moved.values())
    rows: list[DataFrame] = []
    for name, values in moved.items():
        for value in values:
            shared = {name: value} | {k: v for k, v in base.model_dump().items() if k not in (name, "inputs", "labels")}
            four = {
                label: EmergenceConfig.model_validate(shared | {"inputs": c.inputs, "labels": c.labels})
                for label, c in FOUR.items()
            }
            found = run(four, seeds=seeds, progress=within(progress, len(rows), total))["emergence_summary"]
            rows.append(found.assign(varied=name, value="fresh" if value is None else f"{value:g}"))
    kept = ["varied", "value", "setting", "inputs", "labels", "end", "low", "high", "n_seeds"]
    return pd.concat(rows, ignore_index=True)[kept]


def train(config: EmergenceConfig, *, seed: int = 0, progress: Progress = silent) -> DataFrame:
    """One network from one seed: `inputs, labels, seed, step, nonzero, dead, loss`, a row a snapshot."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(config.d_in, config.n_classes, generator=generator)
    weights = start(config, generator)
    counted = draw_inputs(config.inputs, MEASURED, config.d_in, generator)
    held = None if config.n_samples is None else _draw(config, config.n_samples, teacher, generator)
    adam = torch.optim.Adam(weights, lr=config.learning_rate)
    marks = {round(config.steps * i / config.snapshots) for i in range(config.snapshots + 1)}
    rows = []
    for step in range(config.steps + 1):
        x, y = _batch(config, held, teacher, generator)
        loss = torch.nn.functional.cross_entropy(hidden(weights, x) @ weights[2].T + weights[3], y)
        if step in marks:
            rows.append((step, *active(weights, counted), float(loss.detach())))
            progress(step, config.steps, f"{config.inputs} inputs, {config.labels} labels, seed {seed}")
        if step < config.steps:
            adam.zero_grad()
            loss.backward()
            adam.step()
    frame = DataFrame(rows, columns=["step", "nonzero", "dead", "loss"])
    return DataFrame({"inputs": config.inputs, "labels": config.labels, "seed": seed, **frame})


def start(config: EmergenceConfig, generator: torch.Generator) -> list[Tensor]:
    """W1, b1, W2, b2, uniform within 1/sqrt(fan-in) of 0, as `nn.Linear` begins."""
    shapes = [
        ((config.d_hidden, config.d_in), config.d_in),
        ((config.d_hidden,), config.d_in),
        ((config.n_classes, config.d_hidden), config.d_hidden),
        ((config.n_classes,), config.d_hidden),
    ]
    drawn = [(torch.rand(shape, generator=generator) * 2 - 1) / fan_in**0.5 for shape, fan_in in shapes]
    return [w.requires_grad_() for w in drawn]


def hidden(weights: Sequence[Tensor], x: Float[Tensor, "samples d_in"]) -> Float[Tensor, "samples d_hidden"]:
    """relu(W1 x + b1)."""
    return (x @ weights[0].T + weights[1]).relu()


@torch.no_grad()
def active(weights: Sequence[Tensor], x: Float[Tensor, "samples d_in"]) -> tuple[float, float]:
    """Share of hidden activations that are not 0, and share of hidden units that are 0 on every input."""
    fires = hidden(weights, x) > 0
    return float(fires.float().mean()), float((~fires.any(dim=0)).float().mean())


def draw_inputs(law: Inputs, n: int, d: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Independent coordinates: U[0, 1] (mean 1/2), max(0, g) (mean 1/sqrt(2 pi) = .399) or g (mean 0)."""
    if law == "uniform":
        return torch.rand(n, d, generator=generator)
    drawn = torch.randn(n, d, generator=generator)
    return drawn.relu() if law == "relu_gaussian" else drawn


def _draw(config: EmergenceConfig, n: int, teacher: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x = draw_inputs(config.inputs, n, config.d_in, generator)
    if config.labels == "random":
        return x, torch.randint(config.n_classes, (n,), generator=generator)
    return x, (x @ teacher).argmax(dim=1)


def _batch(
    config: EmergenceConfig, held: tuple[Tensor, Tensor] | None, teacher: Tensor, generator: torch.Generator
) -> tuple[Float[Tensor, "batch d_in"], Int[Tensor, " batch"]]:
    if held is None:
        return _draw(config, config.batch_size, teacher, generator)
    chosen = torch.randint(len(held[0]), (config.batch_size,), generator=generator)
    return held[0][chosen], held[1][chosen]


def _summary(course: DataFrame, settings: Mapping[str, EmergenceConfig]) -> DataFrame:
    rows = []
    for name, config in settings.items():
        part = course[course["setting"] == name]
        last, first = part[part["step"] == config.steps], part[part["step"] == 0]
        rows.append(
            {
                "setting": name,
                "inputs": config.inputs,
                "labels": config.labels,
                "start": float(first["nonzero"].mean()),
                "end": float(last["nonzero"].mean()),
                "low": float(last["nonzero"].min()),
                "high": float(last["nonzero"].max()),
                "sd": float(last["nonzero"].std()),
                "dead": float(last["dead"].mean()),
                "chance": float(torch.tensor(float(config.n_classes)).log()),
                "loss": float(last["loss"].mean()),
                "n_seeds": len(last),
                "n_inputs": MEASURED,
                "steps": config.steps,
            }
        )
    return DataFrame(rows)
