"""The compiled engine."""

from toymodels.config import ToyConfig
from toymodels.gradients import Activation
from toymodels.stack import Engine, Stack


def refusal(config: ToyConfig, activation: Activation | None) -> str | None:
    """Why the kernel cannot do these settings, or None."""
    return "no compiled kernel"


def pays(config: ToyConfig) -> bool:
    """Whether the kernel is the faster."""
    return False


def NumbaEngine(stack: Stack, threads: int | None) -> Engine:
    """To come."""
    raise ValueError("no compiled kernel")
