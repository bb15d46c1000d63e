"""Every experiment of 'Toy Models of Superposition' and its followers by name: settings, grid, seeds.

A preset with an `experiment` is done by that function of this package (`module:function`, which gives tables); any
other is a sweep over its grid, or a single stack where there is none.
"""

from dataclasses import dataclass, field
from typing import Any

from toymodels.config import ToyConfig

PAPER_DENSITIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


@dataclass(frozen=True)
class Preset:
    """One experiment."""

    title: str
    """What it shows, in a line."""
    config: ToyConfig = field(default_factory=ToyConfig)
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values by name of setting; every combination is trained."""
    seeds: int = 5
    snapshots: int = 0
    """Snapshots of the training, on a logarithmic schedule."""
    experiment: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    """For the experiment's function."""
    prefix: str = ""
    """Put before the names of the experiment's tables."""


def _evenly(low: float, count: int) -> tuple[float, ...]:
    """1 down to `low`, evenly in the logarithm."""
    return tuple(float(low ** (i / (count - 1))) for i in range(count))


def _odd() -> tuple[tuple[float, ...], ...]:
    """Probabilities of a pentagon's features, one of them ever rarer."""
    return tuple((0.05 * share, 0.05, 0.05, 0.05, 0.05) for share in (1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2, 0.1))


PRESETS: dict[str, Preset] = {
    "intro": Preset(
        "five features in two dimensions: orthogonal while dense, a pentagon when sparse",
        ToyConfig(n_features=5, d_hidden=2, importance=0.9),
        {"feature_probability": (1.0, 0.2, 0.1, 0.05)},
        seeds=10,
    ),
    "pentagon": Preset("five equal sparse features in two dimensions, and how they got there", seeds=10, snapshots=40),
    "basic": Preset(
        "20 features of falling importance in 5 dimensions, from dense to sparse",
        ToyConfig(n_features=20, d_hidden=5, importance=0.7),
        {"feature_probability": PAPER_DENSITIES},
    ),
    "basic-large": Preset(
        "80 features of falling importance in 20 dimensions, from dense to sparse",
        ToyConfig(n_features=80, d_hidden=20, importance=0.9),
        {"feature_probability": PAPER_DENSITIES},
        seeds=3,
    ),
    "linear": Preset(
        "the control: a linear model never uses superposition, however sparse its features",
        ToyConfig(n_features=20, d_hidden=5, importance=0.7, model="linear"),
        {"feature_probability": PAPER_DENSITIES},
        seeds=3,
    ),
    "phase": Preset(
        "two features in one dimension: ignored, kept or in superposition, by importance and sparsity",
        experiment="phase:diagram",
        arguments={"resolution": 32, "n_features": 2},
    ),
    "phase-3": Preset(
        "three features in two dimensions: the same with four candidates",
        experiment="phase:diagram",
        arguments={"resolution": 24, "n_features": 3},
    ),
    "uniform": Preset(
        "100 equal features in 10 dimensions: dimensions per feature rest at 1 and 1/2",
        ToyConfig(n_features=100, d_hidden=10),
        {"feature_probability": _evenly(1 / 20, 20)},
        seeds=3,
    ),
    "uniform-large": Preset(
        "400 equal features in 30 dimensions, as published (about half an hour of a core)",
        ToyConfig(n_features=400, d_hidden=30),
        {"feature_probability": _evenly(1 / 20, 20)},
        seeds=1,
    ),
    "odd-feature": Preset(
        "one feature of a pentagon made ever rarer, until pairs are better",
        ToyConfig(n_features=5, d_hidden=2),
        {"feature_probability": _odd()},
        seeds=24,
    ),
    "correlated": Preset(
        "features that come in pairs: orthogonal within a pair, one direction for both as they get denser",
        ToyConfig(n_features=4, d_hidden=2, features="correlated"),
        {"feature_probability": (0.5, 0.3, 0.1, 0.05, 0.02)},
        seeds=16,
    ),
    "correlated-many": Preset(
        "ten groups of two correlated features in ten dimensions: local almost-orthogonal bases",
        ToyConfig(n_features=20, d_hidden=10, features="correlated"),
        {"feature_probability": (0.3, 0.1, 0.05, 0.01)},
    ),
    "anticorrelated": Preset(
        "features that exclude each other: opposite directions within a pair",
        ToyConfig(n_features=4, d_hidden=2, features="anticorrelated"),
        {"feature_probability": (0.3, 0.1, 0.05, 0.02)},
        seeds=16,
    ),
    "hierarchical": Preset(
        "children that need their parent",
        ToyConfig(n_features=6, d_hidden=2, features="hierarchical", group_size=3, feature_probability=0.1),
        {"child_probability": (0.2, 0.5, 0.8)},
        seeds=10,
    ),
    "polygons": Preset(
        "one active feature at a time: the exact k-gons",
        ToyConfig(features="one_active", schedule="cosine", learning_rate=3e-3, weight_decay=0),
        {"n_features": (3, 4, 5, 6, 7)},
        seeds=40,
    ),
    "privileged-basis": Preset(
        "a ReLU on the hidden layer: features align with neurons, then share them",
        ToyConfig(n_features=10, d_hidden=5, importance=0.75, model="hidden_relu"),
        {"feature_probability": (1.0, 0.75, 0.5, 0.3, 0.15, 0.06, 0.03)},
        seeds=200,
    ),
    "absolute-value": Preset(
        "computing |x| in superposition: neurons turn polysemantic as features get sparser",
        ToyConfig(n_features=100, d_hidden=40, importance=0.8, model="untied", signed=True, target="absolute"),
        {"feature_probability": (1.0, 0.1, 0.01, 0.001)},
        seeds=3,
    ),
    "absolute-value-small": Preset(
        "three absolute values by six neurons, exactly",
        ToyConfig(n_features=3, d_hidden=6, feature_probability=1.0, model="untied", signed=True, target="absolute"),
        seeds=10,
        snapshots=30,
    ),
    "octahedron": Preset(
        "two correlated groups of three in three dimensions, learned in jumps",
        ToyConfig(n_features=6, d_hidden=3, features="correlated", group_size=3),
        seeds=16,
        snapshots=120,
    ),
    "dynamics": Preset(
        "100 features in 10 dimensions while they learn: dimensionalities jump",
        ToyConfig(n_features=100, d_hidden=10, feature_probability=0.3),
        seeds=1,
        snapshots=100,
    ),
    "adversarial": Preset(
        "superposition makes small attacks worse: vulnerability follows features per dimension",
        experiment="adversarial:run",
        prefix="toy_adversarial_",
    ),
    "few-points": Preset(
        "a handful of data points memorised: points, not features, form polygons",
        experiment="memorization:few_points",
        prefix="toy_",
    ),
    "double-descent": Preset(
        "from memorised points to learned features: the bump between",
        experiment="memorization:double_descent",
        prefix="toy_descent_",
    ),
    "sparse-autoencoder": Preset(
        "sparse autoencoders on a toy whose features are known: are they found?",
        experiment="dictionary:recover",
        prefix="toy_recovery_",
    ),
    "experts": Preset("mixtures of experts need fewer features per dimension", experiment="moe:run", prefix="toy_moe_"),
    "process": Preset(
        "context against conditional computation, at equal compute", experiment="process:run", prefix="toy_process_"
    ),
}


def find(name: str) -> Preset:
    """The preset of this name; ValueError lists the names there are."""
    if name not in PRESETS:
        raise ValueError(f"no preset '{name}'; there are {', '.join(PRESETS)}")
    return PRESETS[name]
