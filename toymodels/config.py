"""Settings of a toy model: its features, its shape, its training."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from data import Config, Probability

Features = Literal["independent", "correlated", "anticorrelated", "hierarchical", "one_active"]
Model = Literal["relu", "linear", "hidden_relu", "untied"]
Target = Literal["identity", "absolute"]
Schedule = Literal["constant", "linear", "cosine"]


class ToyConfig(Config):
    """One toy model of superposition, with everything that decides its result except the seed.

    Defaults are those of Elhage et al. 2022, 'Toy Models of Superposition': batch 1024, 10,000 steps, AdamW 1e-3,
    weight decay 0.01, Xavier start, b = 0.
    """

    n_features: PositiveInt = 5
    """Number of ground-truth features, n."""
    d_hidden: PositiveInt = 2
    """Dimensions they are squeezed into, m."""
    feature_probability: Probability | tuple[Probability, ...] = 0.05
    """Chance that a feature is active, one number or one a feature; the literature's sparsity is S = 1 - this.
    In correlated groups the members share one coin; a hierarchical child is active with `child_probability` given its
    parent; with `one_active` features each has chance 1/n and this is not used."""
    importance: PositiveFloat | tuple[NonNegativeFloat, ...] = 1.0
    """Weight of a feature in the loss: a number r means I_i = r^i (1 is uniform), a tuple gives one value a feature."""

    features: Features = "independent"
    """How features occur together.  Groups are runs of `group_size` neighbours.  `correlated`: a group is on or off as
    one, values are independent.  `anticorrelated`: at most one of a group is on.  `hierarchical`: the first of a group
    is the parent, the others are on only where it is.  `one_active`: exactly one of all features is on."""
    group_size: PositiveInt = 2
    """Features a group, where there are groups."""
    child_probability: Probability = 0.5
    """Chance that a child is active given that its parent is (hierarchical features)."""
    signed: bool = False
    """Active values are uniform on [-1, 1] instead of [0, 1]."""
    n_points: PositiveInt | None = None
    """Size of a finite dataset, drawn once and used whole at every step; None draws fresh samples for ever."""
    data_seed: int | None = 0
    """Seed of the finite dataset, so that all instances share it; None gives each its own, from its seed."""
    unit_norm: bool = False
    """Scale each point of a finite dataset to length 1 (Henighan et al. 2023)."""

    model: Model = "relu"
    """`relu`: x' = relu(W^T W x + b).  `linear`: x' = W^T W x + b.  `hidden_relu`: x' = relu(W^T relu(W x) + b), whose
    hidden basis is privileged.  `untied`: x' = relu(V^T relu(W x) + b), for computation in superposition."""
    target: Target = "identity"
    """What x' is compared with: x, or its absolute value."""
    activation: str = "relu"
    """Name of the nonlinearity in `torch.nn.functional`; anything but `relu` is differentiated by autograd."""

    batch_size: PositiveInt = 1024
    """Samples a step (not used with a finite dataset)."""
    steps: PositiveInt = 10_000
    """Optimiser steps."""
    learning_rate: PositiveFloat = 1e-3
    """AdamW's step length at the start."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's decoupled decay, for W and b alike."""
    schedule: Schedule = "constant"
    """How the learning rate falls to 0 over the steps, if it does."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly from 0 first."""
    init_scale: PositiveFloat = 1.0
    """Factor on the Xavier-normal start, whose scale is that of a single (d_hidden, n_features) matrix."""
    early_stop: float | None = Field(default=None, gt=0)
    """Stop an instance when its mean loss over 1,000 steps fell by less than this share of that of the 1,000 before."""

    @field_validator("feature_probability", "importance", mode="wrap")
    @classmethod
    def _one_or_each(cls, value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """One sentence where pydantic would complain once for each form that a value may have."""
        try:
            return check(value)
        except ValidationError:
            if info.field_name == "importance":
                what = "a ratio above 0, or a tuple with one weight of 0 or more for each feature"
            else:
                what = "a number from 0 to 1, or a tuple with one such number for each feature"
            raise ValueError(f"give {what}, not {value!r}") from None

    @model_validator(mode="after")
    def _consistent(self) -> "ToyConfig":
        n = self.n_features
        for name in ("feature_probability", "importance"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != n:
                raise ValueError(f"{name} has {len(value)} values for {n} features; give one number or {n} values")
        if self.features in ("correlated", "anticorrelated", "hierarchical") and n % self.group_size:
            raise ValueError(f"groups of {self.group_size} do not divide {n} features; choose a group_size that does")
        if self.features == "correlated":
            groups = self.probabilities.reshape(-1, self.group_size)
            if np.ptp(groups, axis=1).max() > 0:
                raise ValueError("correlated features of one group share one feature_probability; these differ")
        if self.features == "anticorrelated":
            chance = self.probabilities.reshape(-1, self.group_size).sum(1).max()
            if chance > 1 + 1e-9:
                raise ValueError(
                    f"at most one anticorrelated feature of a group is active, so a group's probabilities sum to at "
                    f"most 1, not {chance:g}; lower feature_probability to 1/group_size or less"
                )
        if self.unit_norm and self.n_points is None:
            raise ValueError("unit_norm scales the points of a finite dataset; set n_points too")
        return self

    @property
    def probabilities(self) -> Float[np.ndarray, " n_features"]:
        """Chance that each feature's own coin falls on active (for a hierarchical child: given its parent)."""
        if self.features == "one_active":
            return np.full(self.n_features, 1 / self.n_features)
        values = np.broadcast_to(np.asarray(self.feature_probability, dtype=np.float64), (self.n_features,)).copy()
        if self.features == "hierarchical":
            values[np.arange(self.n_features) % self.group_size > 0] = self.child_probability
        return values

    @property
    def importances(self) -> Float[np.ndarray, " n_features"]:
        """I_i, the weight of each feature in the loss."""
        if isinstance(self.importance, tuple):
            return np.asarray(self.importance, dtype=np.float64)
        return float(self.importance) ** np.arange(self.n_features, dtype=np.float64)

    @property
    def samples(self) -> int:
        """Samples in one step: the batch, or the whole finite dataset."""
        return self.n_points or self.batch_size

    @property
    def stack_key(self) -> str:
        """Equal for settings that train in one stack: all but probabilities, importances and step lengths."""
        own = {"feature_probability", "importance", "child_probability", "learning_rate", "weight_decay", "init_scale"}
        return ToyConfig.model_construct(**self.model_dump(exclude=own)).digest()

    def learning_rates(self, start: int, stop: int) -> Float[np.ndarray, " steps"]:
        """Learning rate of steps `start` to `stop - 1`."""
        step = np.arange(start, stop, dtype=np.float64)
        left = np.clip(1 - step / self.steps, 0, 1)
        falling = {"constant": np.ones_like(left), "linear": left, "cosine": (1 + np.cos(np.pi * (1 - left))) / 2}
        rising = np.minimum(1, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * falling[self.schedule] * rising
