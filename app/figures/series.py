"""Small mixtures of experts that differ in one thing, side by side.

Tables, as `app.series.measure` makes them:

    series          variant, seed, layer, measure, value, low, high, chance, n_tokens
    series_models   variant, seed, n_experts, k, d_mlp, shared, active, combinations, loss, unigram, kneser_ney, ..
"""

from functools import partial

import plotly.graph_objects as go
from pandas import DataFrame, Series

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width

MEASURES = {
    "beyond_type": "Word-class information<br>beyond the type null (nats)",
    "purest_PUNCT": "Punctuation in the purest expert (%)",
    "purest_VERB": "Verbs in the purest expert (%)",
    "load_entropy": "Evenness of load (1: all the same)",
    "busiest_share": "Share of the busiest 10% of experts (%)",
    "constant_fvu": "Energy of an expert's output that<br>its mean leaves unexplained (FVU)",
    "affine_fvu": "Variance of an expert's output that<br>an affine map leaves unexplained (FVU)",
    "mean_cost": "Loss with a layer's experts replaced<br>by their means (nats a token)",
    "output_cosine": "Cosine of two experts' outputs<br>for the same token",
    "neuron_cosine": "Largest cosine of a neuron with<br>one of another expert",
}
"""Axis titles."""
_SHARES = ("purest_PUNCT", "purest_VERB", "busiest_share")
_REFERENCE = {
    **dict.fromkeys(("purest_PUNCT", "purest_VERB"), "base rate"),
    **dict.fromkeys(("load_entropy", "busiest_share"), "a uniform router"),
    "beyond_type": "the type null",
    "mean_cost": "experts left out",
}


def select(series: DataFrame, measure: str) -> DataFrame:
    """One row a variant and seed, mean over layers: `variant, seed, value, chance, n_tokens`, in the series' order."""
    theme.need(("variant", "seed", "layer", "measure", "value", "chance", "n_tokens"), series, "series")
    rows = series[series["measure"] == measure]
    if rows.empty:
        raise ValueError(
            f"no measure '{measure}' in the table; there are {', '.join(dict.fromkeys(series['measure']))}"
        )
    return rows.groupby(["variant", "seed"], sort=False)[["value", "chance", "n_tokens"]].mean().reset_index()


def side_by_side(series: DataFrame, measure: str, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Every training as a point, the mean of each variant as a bar, and what chance gives beside it."""
    rows, scale = select(series, measure), 100 if measure in _SHARES else 1
    figure = _points(rows.assign(value=rows["value"] * scale), dark=dark)
    if rows["chance"].notna().all():
        chance = rows.groupby("variant", sort=False)["chance"].mean() * scale
        _marks(figure, chance, _REFERENCE.get(measure, "random weights"), dark=dark)
    figure.update_yaxes(title=MEASURES.get(measure, measure), rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=caption(series, measure))


def caption(series: DataFrame, measure: str) -> str:
    """Mean and range of each variant, chance, sample size."""
    rows, form = select(series, measure), "{:.1%}" if measure in _SHARES else "{:.3f}"
    title = MEASURES.get(measure, measure).replace("<br>", " ").removesuffix(" (%)")
    said = [
        f"{name} {form.format(part['value'].mean())} [{form.format(part['value'].min())}, "
        f"{form.format(part['value'].max())}] against {form.format(part['chance'].mean())}"
        for name, part in rows.groupby("variant", sort=False)
    ]
    n = rows["n_tokens"].max()
    read = f"{int(n):,} held-out tokens" if n == n else "the weights alone"
    return (
        f"{title}, mean over layers: {'; '.join(said)} ({_REFERENCE.get(measure, 'random weights')}). Bars: mean of "
        f"{rows['seed'].nunique()} seeds, brackets their range; {read} each."
    )


def losses(models: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Held-out loss of every training, beside the 5-gram of the same tokens."""
    theme.need(("variant", "seed", "loss", "unigram", "kneser_ney"), models, "series_models")
    figure = _points(models.rename(columns={"loss": "value"}), dark=dark)
    _marks(figure, models.groupby("variant", sort=False)["kneser_ney"].mean(), "Kneser-Ney 5-gram", dark=dark)
    figure.update_yaxes(title="Held-out loss (nats a token)")
    return theme.style(figure, dark=dark, width=width, alt=losses_caption(models))


def losses_caption(models: DataFrame) -> str:
    """Loss, size and combinations of each variant."""
    said = [
        f"{name} {part['loss'].mean():.3f} [{part['loss'].min():.3f}, {part['loss'].max():.3f}], "
        f"{part['active'].iloc[0] / 1e6:.2f} of {part['parameters'].iloc[0] / 1e6:.2f} million parameters used for a "
        f"token, {part['combinations'].iloc[0]:,} sets of experts"
        for name, part in models.groupby("variant", sort=False)
    ]
    return (
        f"Held-out loss after {models['tokens'].max() / 1e6:.2f} million tokens, nats a token: {'; '.join(said)}. "
        f"Token frequencies alone {models['unigram'].mean():.3f}, Kneser-Ney 5-gram {models['kneser_ney'].mean():.3f}. "
        f"Means and ranges over {models['seed'].nunique()} seeds."
    )


def _points(rows: DataFrame, *, dark: bool) -> go.Figure:
    look, quiet = theme.look(0, dark=dark), theme.translucent(theme.look(0, dark=dark).colour, 0.35)
    means = rows.groupby("variant", sort=False)["value"].mean()
    figure = go.Figure()
    figure.add_bar(x=means.index, y=means, marker={"color": quiet}, name="mean over seeds", hovertemplate="%{y:.3g}")
    figure.add_scatter(
        x=rows["variant"],
        y=rows["value"],
        customdata=rows["seed"],
        hovertemplate="seed %{customdata}: %{y:.3g}<extra></extra>",
        marker=look.marker,
        mode="markers",
        name="each seed",
    )
    broken = [str(name).replace(" of ", " of<br>").replace(", ", ",<br>") for name in means.index]
    figure.update_xaxes(tickangle=0, tickvals=list(means.index), ticktext=broken)  # straight, also in a column
    return figure


def _marks(figure: go.Figure, chance: Series, name: str, *, dark: bool) -> None:
    figure.add_scatter(
        x=chance.index,
        y=chance,
        marker={"color": theme.INK[dark], "symbol": "line-ew-open", "size": 18, "line": {"width": 2}},
        mode="markers",
        name=name,
    )


FIGURES = (
    *(
        of_table(
            "series",
            name=f"series-{name}",
            title=title,
            draw=partial(side_by_side, measure=measure),
            caption=partial(caption, measure=measure),
            plotted=partial(select, measure=measure),
            sources=("dai2024deepseekmoe",),
        )
        for name, title, measure in (
            ("specialization", "Do finer or more experts specialise more?", "beyond_type"),
            ("punctuation", "The purest expert for punctuation", "purest_PUNCT"),
            ("verbs", "The purest expert for verbs", "purest_VERB"),
            ("load", "How evenly experts are used", "load_entropy"),
            ("busiest", "The busiest tenth of the experts", "busiest_share"),
            ("constants", "How near experts are to constants", "constant_fvu"),
            ("affine", "How near experts are to affine maps", "affine_fvu"),
            ("means", "What it costs to replace experts by their means", "mean_cost"),
            ("outputs", "How alike experts are in what they make of a token", "output_cosine"),
            ("weights", "How alike experts are in their weights", "neuron_cosine"),
        )
    ),
    of_table(
        "series_models",
        name="series-loss",
        title="What it does to the loss",
        draw=losses,
        caption=losses_caption,
        sources=("dai2024deepseekmoe",),
    ),
)
