"""What a sparse autoencoder keeps of a model's activations, beside its controls.

Tables, as `probes.saes.measure` makes them:

    sae          condition, site, layer, d_sae, l0, fvu, fvu_low, fvu_high, fvu_token, dead_latents, loss*, recovered_*,
                 n_tokens, n_loss_tokens
    sae_latents  condition, latent, frequency, mean_active, norm
"""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from app.figures import theme
from app.figures.catalogue import of_table
from app.figures.theme import Width

LABELS = {"real": "autoencoder", "pca": "principal components", "random_init": "autoencoder, random weights"}
_LOOKS = {"real": 0, "pca": 1, "random_init": 6}
_NEEDED = ("condition", "site", "layer", "l0", "fvu", "fvu_low", "fvu_high", "dead_latents", "d_sae", "n_tokens")
_BINS = np.linspace(-5, 0, 41)


def kept(sae: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Fraction of variance unexplained of the autoencoder and of each control, with 95% intervals."""
    theme.need(_NEEDED, sae, "sae")
    figure = go.Figure()
    for row in sae.to_dict("records"):
        look = theme.look(_LOOKS.get(row["condition"], 3), dark=dark)
        figure.add_bar(
            x=[LABELS.get(row["condition"], row["condition"])],
            y=[row["fvu"]],
            error_y={"array": [row["fvu_high"] - row["fvu"]], "arrayminus": [row["fvu"] - row["fvu_low"]]},
            customdata=[[row["l0"], row["d_sae"], row["n_tokens"]]],
            hovertemplate="FVU %{y:.3f}<br>%{customdata[0]:.1f} of %{customdata[1]:,} active"
            "<br>%{customdata[2]:,} tokens<extra></extra>",
            marker={"color": look.colour},
            showlegend=False,
        )
    figure.update_yaxes(title="Fraction of variance unexplained", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=kept_caption(sae))


def kept_caption(sae: DataFrame) -> str:
    """FVU, L0 and dead latents of each condition, and on how many tokens."""
    theme.need(_NEEDED, sae, "sae")
    sure = sae["fvu_low"].notna().all()
    parts = [
        f"{LABELS.get(r['condition'], r['condition'])} {r['fvu']:.3f} "
        + (f"[{r['fvu_low']:.3f}, {r['fvu_high']:.3f}] " if sure else "")
        + f"with {r['l0']:.1f} of {r['d_sae']:,} active"
        for r in sae.to_dict("records")
    ]
    intervals = "Intervals: 95%, documents resampled" if sure else "Too few documents for an interval"
    real = sae[sae["condition"] == "real"].iloc[0]
    return (
        f"Fraction of variance unexplained of {real['site']} in layer {int(real['layer'])}: {'; '.join(parts)}. "
        f"{intervals}; {int(real['n_tokens']):,} tokens of documents not trained on, without "
        f"first positions and attention sinks. {int(real['dead_latents']):,} latents were active for none of them."
    )


def losses(sae: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """The language model's loss with the site as it is, rebuilt, replaced by its mean, and by zero."""
    theme.need((*_NEEDED, "loss", "loss_sae", "loss_mean", "loss_zero", "n_loss_tokens"), sae, "sae")
    figure = go.Figure()
    names = {"loss": "as it is", "loss_sae": "rebuilt", "loss_mean": "its mean", "loss_zero": "zero"}
    for row in sae.to_dict("records"):
        look = theme.look(_LOOKS.get(row["condition"], 3), dark=dark)
        figure.add_scatter(
            x=list(names.values()),
            y=[row[column] for column in names],
            mode="markers",
            marker=look.marker | {"size": 10},
            name=LABELS.get(row["condition"], row["condition"]),
            hovertemplate="%{x}: %{y:.3f} nats<extra></extra>",
        )
    figure.update_xaxes(title="Site replaced by")
    figure.update_yaxes(title="Loss (nats a token)")
    return theme.style(figure, dark=dark, width=width, alt=losses_caption(sae))


def losses_caption(sae: DataFrame) -> str:
    """Loss recovered by each condition, on how many tokens."""
    parts = [
        f"{LABELS.get(r['condition'], r['condition'])} {_share(r['recovered_mean'])} of the harm of mean ablation and "
        f"{_share(r['recovered_zero'])} of that of zero ablation"
        for r in sae.to_dict("records")
    ]
    n = int(sae["n_loss_tokens"].iloc[0])
    return (
        f"Loss recovered: {'; '.join(parts)}. {n:,} tokens of documents not trained on, one pass, without interval; "
        "the first four positions of each window are left as they are in all cases."
    )


def latent_spectrum(latents: DataFrame, *, dark: bool = False, width: Width = "screen") -> go.Figure:
    """Share of latents by the logarithm of how often they are active, dead ones at the left edge."""
    theme.need(("condition", "latent", "frequency"), latents, "sae_latents")
    figure = go.Figure()
    for name in dict.fromkeys(latents["condition"]):
        look = theme.look(_LOOKS.get(name, 3), dark=dark)
        rows = spectrum_data(latents[latents["condition"] == name])
        figure.add_scatter(
            x=rows["log10_frequency"],
            y=rows["share"] * 100,
            line=look.line | {"shape": "hvh"},
            mode="lines",
            name=LABELS.get(name, name),
        )
    figure.update_xaxes(title="log10 of the share of tokens on which a latent is active")
    figure.update_yaxes(title="Latents (%)", rangemode="tozero")
    return theme.style(figure, dark=dark, width=width, alt=latent_caption(latents))


def spectrum_data(latents: DataFrame) -> DataFrame:
    """Columns `condition, log10_frequency` (middle of a bin), `share`; frequencies below 1e-5 fall in the first bin."""
    rows = []
    for name, part in latents.groupby("condition", sort=False):
        level = np.log10(part["frequency"].clip(lower=10.0 ** _BINS[0]).to_numpy())
        counts = np.histogram(level, _BINS)[0] / len(part)
        rows += [(name, (a + b) / 2, c) for a, b, c in zip(_BINS[:-1], _BINS[1:], counts, strict=True)]
    return DataFrame(rows, columns=["condition", "log10_frequency", "share"])


def latent_caption(latents: DataFrame) -> str:
    """Latents, the dead among them, and the median frequency of the living."""
    parts = []
    for name, part in latents.groupby("condition", sort=False):
        alive = part.loc[part["frequency"] > 0, "frequency"]
        middle = f", half of the others on more than {alive.median():.2%} of tokens" if len(alive) else ""
        parts.append(f"{LABELS.get(str(name), name)}: {len(part) - len(alive):,} of {len(part):,} never active{middle}")
    return f"How often latents are active. {'; '.join(parts)}. Counts of one pass, without interval."


def _share(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else "an unmeasurably small part"


FIGURES = (
    of_table("sae", name="sae-fvu", title="What is lost", draw=kept, caption=kept_caption),
    of_table("sae", name="sae-loss", title="What the model loses", draw=losses, caption=losses_caption),
    of_table(
        "sae_latents",
        name="sae-latents",
        title="How often latents are active",
        draw=latent_spectrum,
        caption=latent_caption,
        plotted=spectrum_data,
    ),
)
