"""The options that verbs share, each with one name and one wording; and those that say how a model is opened."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

R = TypeVar("R")

Model = Annotated[str, typer.Option(help="A name, a GGUF file, a folder or a hub name; see `sparsescope models`.")]
Text = Annotated[str, typer.Option("--corpus", "--text", help="A name, a file or a folder; see `sparsescope corpora`.")]
SecretExperts = Annotated[
    str | None, typer.Option(help="A run of `probe secret`: its students are the experts of the dense model.")
]
Dtype = Annotated[
    str, typer.Option(help="Number type of the forward pass: float32, bfloat16, or auto (bfloat16 where it is fast).")
]
Engine = Annotated[str, typer.Option(help="local, or ray for a cluster (pip install 'sparsescope[cluster]').")]
Name = Annotated[str | None, typer.Option(help="Name of the run. Default: made from the settings.")]

Hub = dict[str, Any]
"""What `opens_a_model` hands a verb: the settings of `app.measurements.FromHub`."""
_HUB = (
    inspect.Parameter(
        "device_map",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option(help="Spread a model from the hub over the devices there are, e.g. auto. Needs accelerate."),
        ],
    ),
    inspect.Parameter(
        "trust_remote_code",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[
            bool,
            typer.Option(
                "--trust-remote-code", help="Run code that comes with the model; else such a model is refused."
            ),
        ],
    ),
)


def opens_a_model(verb: Callable[..., R]) -> Callable[..., R]:
    """Decorate a verb with a parameter `hub: Hub`: `--device-map` and `--trust-remote-code` stand in its place.

    Put it under `guard`: `@verbs.command()` / `@guard` / `@opens_a_model` / `def verb(..., *, hub: Hub, ...)`.
    """
    signature = inspect.signature(verb)
    found = [given.replace(kind=inspect.Parameter.KEYWORD_ONLY) for given in signature.parameters.values()]
    at = list(signature.parameters).index("hub")
    options = [*found[:at], *_HUB, *found[at + 1 :]]

    @functools.wraps(verb)
    def opening(**given: Any) -> R:
        hub = {option.name: given.pop(option.name) for option in _HUB}
        return verb(**given, hub=hub)

    opening.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    opening.__annotations__ = {option.name: option.annotation for option in options}
    return opening
