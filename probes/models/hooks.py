"""Hooks on plain modules that see, and may replace, what goes in or comes out."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def before(module: nn.Module, hook: Callable[[Tensor], Tensor | None]) -> Any:
    """Show the hook the module's first input; what it returns, if anything, takes the input's place."""

    def run(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            new = hook(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        new = hook(kwargs[name])
        return None if new is None else (args, kwargs | {name: new})

    return module.register_forward_pre_hook(run, with_kwargs=True)


def after(module: nn.Module, hook: Callable[[Tensor], Tensor | None], index: int = 0) -> Any:
    """Show the hook the module's output (entry `index` of a tuple)."""

    def run(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return hook(output)
        new = hook(output[index])
        return None if new is None else (*output[:index], new, *output[index + 1 :])

    return module.register_forward_hook(run)


def first(output: Any) -> Any:
    """The tensor of a module's output, which may be the first of a tuple."""
    return output[0] if isinstance(output, tuple) else output
