"""`sparsescope coherence`: how far apart are a dictionary's directions, and what is recovered from them."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands._columns import echo_columns, echo_table
from app.commands._options import Hub, Text, opens_a_model
from app.commands._run import guard, measured

verbs = typer.Typer(
    name="coherence",
    help="Coherence of a dictionary's columns, what it guarantees, and what sparse recovery does in fact.",
    no_args_is_help=True,
)


@verbs.command("measure")
@guard
@opens_a_model
def measure(
    dictionaries: Annotated[
        list[str], typer.Argument(help="MODEL#PART, FILE[#KEY] (.npy .npz .safetensors .csv) or frame:NAME[:SIZES].")
    ],
    method: Annotated[list[str] | None, typer.Option(help="thresholding, omp or lasso; repeat for several.")] = None,
    trials: Annotated[int, typer.Option(help="Planted codes for each k.")] = 100,
    dynamic_range: Annotated[float, typer.Option(help="Greatest over least magnitude of active features.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Length of the noise, in units of the least magnitude.")] = 0.0,
    supports: Annotated[
        str | None,
        typer.Option(help="FILE[#KEY] with supports seen in use, a row a sample: codes (SAE latents) or indices."),
    ] = None,
    support: Annotated[
        list[int] | None,
        typer.Option(help="A feature of the support whose exact recovery condition is wanted; repeat."),
    ] = None,
    transpose: Annotated[bool, typer.Option(help="The file keeps features as rows.")] = False,
    control: Annotated[bool, typer.Option(help="Measure a random dictionary of the same size as well.")] = True,
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of planted codes and control.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder to write. Default: runs/coherence-DIGEST.")] = None,
) -> None:
    """Measure mutual coherence, its bounds and empirical recovery, and keep the tables in a run.

    Columns are features. mu is the largest |cosine| of two of them; mu (2k - 1) < 1 guarantees that every code of k
    active features is recovered. The printed bars set that k beside the Babel bound, two predictions, and the largest k
    recovered in 95% of trials. Without --supports the active features are drawn uniformly; with it they are those that
    occur together in the file. The same command goes on where it was stopped.

    Examples: `sparsescope coherence measure smollm2-135m#layer-15-down`,
    `sparsescope coherence measure decoder.npy --supports codes.npz --noise 0.2`,
    `sparsescope coherence measure frame:random:64x256 --support 3 --support 17 --support 40`,
    `sparsescope coherence measure frame:random:576x1536 --method thresholding --method lasso`,
    `sparsescope coherence measure decoder.safetensors#W_dec --transpose`
    """
    from app.coherence import CoherenceConfig, work

    given = {"methods": tuple(method)} if method else {}
    config = CoherenceConfig.model_validate(
        {"dictionaries": tuple(dictionaries), "transpose": transpose, "trials": trials, "dynamic_range": dynamic_range}
        | {"noise": noise, "control": control, "seed": seed, "supports": supports, "support": tuple(support or ())}
        | given
        | hub
    )
    run = measured("coherence", config, work, seed=seed, out=out)
    shown = ["dictionary", "condition", "mu", "welch", "k_guaranteed", "k_babel", "first", "second"]
    echo_table(run.table("coherence"), [*shown, "erc"] if support else shown, digits=4)
    typer.echo("")
    echo_table(run.table("recovery_bars"), ["dictionary", "condition", "bar", "kind", "k"])
    typer.echo(f"\ntables are in {run.path}")


@verbs.command("router")
@guard
@opens_a_model
def router(
    model: Annotated[str, typer.Argument(help="A model with mixtures of experts: a name or a folder.")],
    corpus: Text = "sotu-modern",
    n_tokens: Annotated[int, typer.Option("--tokens", help="Text tokens to read.")] = 4_000,
    layer: Annotated[list[int] | None, typer.Option(help="A layer; repeat. Default: all that route.")] = None,
    trials: Annotated[int, typer.Option(help="Codes planted on uniform and on routed supports.")] = 200,
    *,
    hub: Hub,
    seed: Annotated[int, typer.Option(help="Seed of documents, random router and planted codes.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder to write. Default: runs/router-DIGEST.")] = None,
) -> None:
    """Read a model's routers as dictionaries: are expert rows far enough apart, and do routed supports overlap?

    A linear router with top-k is one-step thresholding over its expert rows. mu (2k - 1) < 1 at the model's own k would
    guarantee that sparse sums of expert rows are routed back to their experts. Beside it: the share of supports
    recovered, uniform ones and those the model routes; the share of experts that two tokens have in common, against k/E
    for independent uniform choices and against a random router on the same inputs (intervals: blocks of documents
    resampled). The figure is coherence-routers.

    Example: `sparsescope coherence router FOLDER --tokens 4000`
    """
    from app.routers import RouterConfig, read_routers

    config = RouterConfig(
        model=model,
        corpus=corpus,
        n_tokens=n_tokens,
        layers=tuple(layer or ()),
        trials=trials,
        seed=seed,
        **hub,
    )
    run = measured("router", config, read_routers, seed=seed, out=out)
    shown = ["layer", "router", "mu", "welch", "k", "k_guaranteed", "certified"]
    echo_table(run.table("router_reading"), shown, digits=4)
    typer.echo("")
    shown = ["layer", "router", "n_tokens", "mean", "low", "high", "chance", "ratio"]
    echo_table(run.table("router_overlap"), shown, digits=4)
    typer.echo(f"\ntables are in {run.path}")


@verbs.command("separability")
@guard
def separability(
    d_model: Annotated[int, typer.Option(help="Dimensions d.")] = 64,
    n_features: Annotated[int, typer.Option(help="Directions F of the planted dictionary.")] = 256,
    n_clusters: Annotated[int, typer.Option(help="Clusters, each with its own pool of features.")] = 16,
    k: Annotated[list[int] | None, typer.Option(help="Active features; repeat. Default: 1 2 4 8 16.")] = None,
    shared: Annotated[
        list[float] | None,
        typer.Option(help="Share of one common direction, which raises mu; repeat. Default: 0 .25 .5 .75 .9."),
    ] = None,
    noise: Annotated[float, typer.Option(help="Length of the noise; the least magnitude is 1.")] = 1.0,
    n_tokens: Annotated[int, typer.Option(help="Tokens a cell; half teach the router, half test it.")] = 2_000,
    seed: Annotated[int, typer.Option(help="Seed of dictionary, tokens and noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder to write. Default: runs/separability-DIGEST.")] = None,
) -> None:
    """Measure whether a linear router tells planted clusters of sparse codes apart, as mu and k vary.

    Each cluster owns a pool of 2k features; its tokens have k of them active, with positive or random signs, and noise.
    A ridge router learns the clusters from half of the tokens. `accuracy` is its share of right answers on the other
    half, `null` that of the same router taught permuted labels. The figure is coherence-separability.

    Examples: `sparsescope coherence separability`,
    `sparsescope coherence separability --k 2 --k 8 --shared 0 --shared 0.9`
    """
    from app.routers import SeparabilityConfig, separate

    given = {name: tuple(values) for name, values in (("ks", k), ("shared", shared)) if values}
    config = SeparabilityConfig.model_validate(
        {"d_model": d_model, "n_features": n_features, "n_clusters": n_clusters, "noise": noise}
        | {"n_tokens": n_tokens, "seed": seed}
        | given
    )
    run = measured("separability", config, separate, seed=seed, out=out)
    shown = ["shared", "mu", "k", "k_guaranteed", "signs", "accuracy", "low", "high", "null", "chance"]
    echo_table(run.table("separability"), shown, digits=4)
    typer.echo(f"\ntables are in {run.path}")


@verbs.command("parts")
@guard
@opens_a_model
def parts(
    model: Annotated[str, typer.Argument(help="Name, GGUF file, folder or hub name.")] = "smollm2-135m",
    *,
    hub: Hub,
) -> None:
    """List the matrices of a model that are dictionaries over its residual stream.

    Example: `sparsescope coherence parts smollm2-135m`
    """
    from probes import open_model
    from probes.dictionaries import parts as parts_of

    for part, parameter in parts_of(open_model(model, **hub)).items():
        typer.echo(f"{model}#{part}   {parameter}")


@verbs.command("bounds")
@guard
def bounds(
    d_model: Annotated[int, typer.Argument(help="Dimensions d.")],
    n_features: Annotated[int, typer.Argument(help="Features F.")],
) -> None:
    """What size alone allows: Welch bound, random coherence, square-root bottleneck, number of supports.

    Example: `sparsescope coherence bounds 576 1536`
    """
    from probes import bounds as b

    mu = b.random_coherence(d_model, n_features)
    k = max(2, b.k_from_coherence(mu, n_features))
    rows = [
        ("welch", f"{b.welch(d_model, n_features):.4f}", "least mu of any dictionary of this size"),
        ("random mu", f"{mu:.4f}", "median mu of random dictionaries"),
        ("random k", b.k_from_coherence(mu, n_features), "certified by that mu"),
        ("bottleneck", f"{b.square_root_bottleneck(d_model):.1f}", "(1 + sqrt d)/2: no certificate beyond, for F >> d"),
        ("thresholding", b.k_predicted_thresholding(d_model, n_features), "predicted k of one-step thresholding"),
        ("omp", f"{b.k_predicted_omp(d_model, n_features):.0f}", "predicted k of orthogonal matching pursuit"),
        ("max F", f"{b.max_features(d_model, k):.4g}", f"no dictionary with more features certifies k = {k}"),
        (
            "supports of F",
            f"{b.rounded(b.n_supports(n_features, k)):.4g}",
            f"sets of at most {k} features: what a code tells apart",
        ),
        (
            "supports of d",
            f"{b.rounded(b.n_supports(d_model, k)):.4g}",
            f"sets of at most {k} neurons: does not grow with F",
        ),
    ]
    echo_columns(("quantity", "value", "meaning"), rows)
