"""How a verb is told which model to open: the options that all of them share."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="A name, a GGUF file, a folder or a hub name; see `sparsescope models`.")]
Dtype = Annotated[
    str, typer.Option(help="Number type of the forward pass: float32, bfloat16, or auto (bfloat16 where it is fast).")
]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="Spread a model from the hub over the devices there are, e.g. auto. Needs accelerate."),
]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model; else such a model is refused.")
]
