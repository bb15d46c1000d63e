"""What a sparse autoencoder finds of a toy model's true features.

Table, as `toymodels.dictionary.run` makes it:

    toy_recovery_runs   seed, mean_max_cosine, mean_max_cosine_start, mcc, f1, fvu, dead_latents, d_sae, best,
                        n_represented
"""

import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width
from app.figures.toys_layout import finish

SCORES = {
    "mean_max_cosine": "mean max cosine",
    "mean_max_cosine_start": "before training (control)",
    "mcc": "one-to-one |cosine| (MCC)",
    "f1": "F1 of detection",
}


def recovery(table: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Each seed's scores as points, the seed of lowest training loss filled."""
    theme.need(("seed", "mean_max_cosine", "best"), table, "toy_recovery_runs")
    figure = go.Figure()
    held = {name: words for name, words in SCORES.items() if name in table}
    for i, kept in enumerate((False, True)):
        rows, look = table[table["best"] == kept], theme.look(i, dark=dark)
        long = rows.melt(id_vars="seed", value_vars=list(held))
        figure.add_scatter(
            x=long["value"],
            y=long["variable"].map(held),
            mode="markers",
            name="lowest training loss" if kept else "other seeds",
            customdata=long["seed"],
            marker={
                "color": look.colour,
                "symbol": look.symbol if kept else f"{look.symbol}-open",
                "size": 11 if width == "screen" else 7,
            },
            hovertemplate="seed %{customdata}: %{x:.4f}<extra></extra>",
        )
    figure.update_xaxes(title="score, 1 is every feature found", range=[0, 1.03])
    figure.update_yaxes(title="measure", categoryorder="array", categoryarray=list(held.values())[::-1])
    told = f"{len(table)} autoencoders"
    if "d_sae" in table and "n_represented" in table:
        told += (
            f" of {int(table['d_sae'].iloc[0])} latents for {int(table['n_represented'].iloc[0])} represented features"
        )
    if "dead_latents" in table:
        told += f"; dead latents {int(table['dead_latents'].min())}-{int(table['dead_latents'].max())}"
    alt = recovery_caption(table)
    return finish(figure, told, dark=dark, width=width, alt=alt, legend=True, height=(360, 2.9))


def recovery_caption(table: DataFrame) -> str:
    """The best seed's score beside the range over seeds and the control before training."""
    best = table[table["best"]].iloc[0]
    scores = table["mean_max_cosine"]
    words = (
        f"How well sparse autoencoders recover a toy model's features: mean largest cosine "
        f"{best['mean_max_cosine']:.4f} for the seed of lowest loss, {scores.min():.4f}-{scores.max():.4f} over "
        f"{len(scores)} seeds"
    )
    if "mean_max_cosine_start" in table:
        words += f"; {table['mean_max_cosine_start'].mean():.3f} before training, the control"
    return words + "."


FIGURES = (
    of_table(
        "toy_recovery_runs",
        name="toy-recovery",
        title="Features found by sparse autoencoders",
        draw=recovery,
        caption=recovery_caption,
    ),
)
