"""`sparsescope toy`: toy models of superposition."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands._run import guard, progress

if TYPE_CHECKING:
    from data import Config, Run

verbs = typer.Typer(name="toy", help="Toy models of superposition: train them, sweep their settings, redo the papers.")

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, e.g. --set n_features=20 (repeatable); `toy settings` lists them."),
]
Seeds = Annotated[int | None, typer.Option(help="Models trained of each setting; the best by loss is shown.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
Name = Annotated[str | None, typer.Option(help="Name of the run. Default: made from the settings.")]


@verbs.callback()
def toy() -> None:
    """Toy models of superposition: train them, sweep their settings, redo the papers.

    Begin with `sparsescope toy presets`, then `sparsescope toy run pentagon`.
    """


@verbs.command()
@guard
def presets() -> None:
    """List the experiments that `sparsescope toy run` knows by name.

    Example: `sparsescope toy presets`, then `sparsescope toy run pentagon`
    """
    from toymodels.presets import PRESETS

    wide = max(map(len, PRESETS))
    for name, preset in PRESETS.items():
        typer.echo(f"{name:<{wide}}  {preset.title}")


@verbs.command()
@guard
def settings() -> None:
    """List every setting of a toy model with its default and what it means.

    Example: `sparsescope toy settings`, then `sparsescope toy train --set schedule=cosine`
    """
    from toymodels import ToyConfig

    for name, about in ToyConfig.model_fields.items():
        typer.echo(f"{name} = {about.default!r}\n    {' '.join((about.description or '').split())}")


@verbs.command()
@guard
def run(
    preset: Annotated[str, typer.Argument(help="Name of an experiment; `sparsescope toy presets` lists them.")],
    setting: Settings = None,
    seeds: Seeds = None,
    steps: Steps = None,
    name: Name = None,
) -> None:
    """Redo an experiment of the literature: its settings, its grid, best of its seeds.

    Tables and weights go to the run as they are ready; Ctrl-C saves, the same command goes on.

    Examples: `sparsescope toy run pentagon`, `sparsescope toy run basic --seeds 10`,
    `sparsescope toy run uniform --steps 3000 --name quick-look`,
    `sparsescope toy run sparse-autoencoder --set "config={'architecture': 'topk'}"`
    """
    from app.toys import ToyRun, prepared, settings_of
    from toymodels.presets import find

    found = find(preset)
    asked: Any = settings_of(found, preset)
    if isinstance(asked, ToyRun):
        asked = _changed(asked, _read(setting), {}, seeds, steps)
    else:
        more = _read(setting) | ({} if seeds is None else {"seeds": seeds})
        if steps is not None:
            raise ValueError(f"--steps does not apply to '{preset}', which has a schedule of its own")
        asked = asked.model_copy(update={"arguments": asked.arguments | more})
        prepared(found, asked.arguments)
    _do(name or preset, asked, named=name is not None, standard=asked == settings_of(found, preset))


@verbs.command()
@guard
def train(
    features: Annotated[int, typer.Option("--features", "-n", help="Number of features, n.")] = 5,
    hidden: Annotated[int, typer.Option("--hidden", "-m", help="Dimensions they are squeezed into, m.")] = 2,
    probability: Annotated[float, typer.Option("--probability", "-p", help="Chance that a feature is active.")] = 0.05,
    importance: Annotated[float, typer.Option(help="Ratio r of importances, I_i = r^i.")] = 1.0,
    setting: Settings = None,
    seeds: Seeds = 10,
    steps: Steps = None,
    snapshots: Annotated[int, typer.Option(help="Snapshots of the training, evenly in log(step).")] = 40,
    name: Name = None,
) -> None:
    """Train one toy model from several seeds, and keep how the best one came about.

    A model squeezes n features into m dimensions and reads them back: x' = relu(W^T W x + b). Sparse features let it
    hold more than m of them; the tables say how much of a dimension each got, and in which polytope they lie.

    Example: `sparsescope toy train -n 5 -m 2 -p 0.05 --seeds 10`
    """
    from app.toys import ToyRun

    own = {"n_features": features, "d_hidden": hidden, "feature_probability": probability, "importance": importance}
    asked = _changed(ToyRun(snapshots=snapshots), own | _read(setting), {}, seeds, steps)
    _do(name or "toy", asked, named=name is not None)


@verbs.command()
@guard
def sweep(
    grid: Annotated[
        list[str],
        typer.Option("--grid", help="A setting and its values, e.g. feature_probability=1,0.1,0.01 (repeatable)."),
    ],
    setting: Settings = None,
    seeds: Seeds = None,
    steps: Steps = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster (pip install 'sparsescope[cluster]').")] = (
        "local"
    ),
    name: Name = None,
) -> None:
    """Train every combination of the grid's values from several seeds: one table, best of seeds marked.

    Example: `sparsescope toy sweep --grid feature_probability=1,0.3,0.1,0.03 --grid d_hidden=2,5 --set n_features=20`
    """
    from app.toys import ToyRun

    values = {key: _values(text) for key, text in map(_pair, grid)}
    asked = _changed(ToyRun(engine=engine), _read(setting), values, seeds, steps)
    _do(name or "toy-sweep", asked, named=name is not None)


def _changed(asked: Any, settings: dict[str, Any], grid: dict[str, Any], seeds: int | None, steps: int | None) -> Any:
    """The run with other settings; ValueError names what does not exist or does not fit."""
    from app.toys import ToyRun
    from toymodels import ToyConfig
    from toymodels.sweeps import combinations

    more = settings | ({} if steps is None else {"steps": steps})
    base = ToyConfig.model_validate(asked.base.model_dump() | more)
    changed = {"base": base.model_dump(), "grid": asked.grid | grid}
    changed |= {} if seeds is None else {"seeds": seeds}
    combinations(changed["grid"], base)
    return ToyRun.model_validate(asked.model_dump() | changed)


def _do(stem: str, asked: "Config", *, named: bool, standard: bool = False) -> None:
    """Do the run under its name; other settings than a preset's own get a name of their own."""
    from app import jobs, toys
    from data.runs import create

    name = stem if named or standard else f"{stem}-{asked.digest()}"
    swept = isinstance(asked, toys.ToyRun)
    made = create(name, asked, kind="toy.sweep" if swept else "toy.experiment", seed=0)
    with progress(name) as tell:
        jobs.carry_out(made, toys.do_sweep if swept else toys.do_experiment, tell)
    _tell(made)


def _tell(made: "Run") -> None:
    held = made.table_names()
    if "toy_room" in held:
        best = made.table("toy_room").query("best")
        for row in best.to_dict("records"):
            shape = f", {row['polytope']}" if row.get("polytope") else ""
            where = f"n={row['n_features']} m={row['d_hidden']} p={row['feature_probability']:.3g}"
            typer.echo(
                f"{where}: loss {row['loss']:.4g}, "
                f"dimensions per feature {row['dimensions_per_feature']:.3f}{shape} (seed {row['seed']})"
            )
    typer.echo(f"run '{made.name}' is done ({made.path}): tables {', '.join(held)}")


def _read(settings: list[str] | None) -> dict[str, Any]:
    return {key: _value(text) for key, text in map(_pair, settings or [])}


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise ValueError(f"'{text}' is not name=value, e.g. n_features=20")
    return key.strip().replace("-", "_"), value.strip()


def _value(text: str) -> Any:
    """A number, true/false, none, a (tuple), or a word."""
    import ast

    plain = {"true": True, "false": False, "none": None}
    if text.lower() in plain:
        return plain[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _values(text: str) -> tuple[Any, ...]:
    """`1,0.1` -> (1, 0.1); `(1,0.1),(1,1)` -> two tuples; `relu,linear` -> two words."""
    whole = _value(text if text.endswith(",") else f"{text},")
    if isinstance(whole, tuple):
        return whole
    return tuple(_value(part) for part in text.split(",") if part)
