"""The explorer of experts, the views beside its map: depth, load, one token, two runs, a sentence."""

import os
from functools import partial
from pathlib import Path

import streamlit as st
from pandas import DataFrame

from app import experts as reading
from app.address import pick
from app.explorer import CONDITIONS, Asked, Explorer
from app.figures import experts as figures
from app.figures import routing, specialization
from app.figures.catalogue import find
from app.matched_experts import matched
from app.panels import chart, dark, downloads, entry_panel, frame, plain, runs, told
from app.routing import MODEL
from data.runs import Run, open_run

NULLS = {"base": "share in the text", "null": "token identity"}
"""What a lift may be over."""


@st.cache_resource(max_entries=3, show_spinner=False)
def _explorer(folder: str, changed: int) -> Explorer:
    return Explorer(Path(folder))


def explorer(run: Run) -> Explorer:
    """The run's routed tokens, read again when they have changed."""
    return _explorer(str(run.path), (run.path / "routes.parquet").stat().st_mtime_ns)


def chosen_condition(held: list[str]) -> str:
    """The trained model or one of its baselines."""
    options = [c for c in CONDITIONS if c in held]
    return pick(
        "Router",
        options,
        "router",
        place=partial(st.segmented_control, required=True),
        words=CONDITIONS.__getitem__,
        help="The trained model, or a baseline: random weights; random directions that choose on the trained router's "
        "input; a router that knows nothing but the token (hash).",
    )


def small_table(rows: DataFrame, **names: str) -> None:
    """A small table; shares in per cent."""
    shares = [c for c in ("share", "low", "high", "expected", "rate", "label_share", "label_base") if c in rows]
    shown = rows.rename(columns=names)
    config = {names.get(c, c): st.column_config.NumberColumn(format="percent") for c in shares}
    st.dataframe(shown, hide_index=True, width="stretch", column_config=config)


def depth(run: Run) -> None:
    """Routes from layer to layer."""
    links = frame(run, "transitions")
    condition = chosen_condition(list(links["condition"].unique()))
    with told():
        drawn = routing.route_map(links, condition, dark=dark())
        chart(drawn, key="routes", caption=routing.route_caption(links, condition))
        if condition == "real":
            downloads(find("experts-routes"), run)
    rows = frame(run, "paths")
    mine = rows[rows["condition"] == condition] if len(rows) else rows
    if "path_counts" in run.table_names():
        counts = frame(run, "path_counts").query("condition == @condition").set_index("measure")["value"]
        if len(counts):
            st.markdown(
                f"**{counts['effective']:,.0f} paths**, as many as would be equally used; {counts['distinct']:,.0f} "
                f"are taken by {counts['n_tokens']:,.0f} tokens. Independent layers of the same loads: "
                f"{counts['independent']:,.0f}; chains of the same neighbouring pairs: {counts['markov']:,.0f}."
            )
    if len(mine):
        st.markdown(f"**Most frequent paths** through layers {plain(mine['layers'].iloc[0])}")
        columns = ["path", "n", "share", "low", "high", "expected", "label", "label_share", "label_base"]
        names = {"label": "mostly", "label_share": "of its tokens", "label_base": "of all tokens"}
        small_table(mine[columns].head(20), expected="independent layers", **names)


def loads(run: Run) -> None:
    """How evenly experts are used, layer by layer, and together with whom."""
    measured = frame(run, "routing")
    measure = pick("Measure", routing.measures(measured), "measure", words=routing.MEASURES.__getitem__)
    chart(
        routing.by_layer(measured, measure, dark=dark()),
        key="by-layer",
        caption=routing.by_layer_caption(measured, measure),
    )
    load = frame(run, "load")
    left, right = st.columns([2, 1])
    with left:
        condition = chosen_condition(list(load["condition"].unique()))
    layer = pick("Layer", [str(i) for i in sorted(load["layer"].unique())], "layer", place=right.selectbox)
    first, second = st.columns(2, gap="large")
    with first, told():
        drawn = routing.load_bars(load, int(layer), condition, dark=dark())
        chart(drawn, key="load", caption=routing.load_caption(load, int(layer), condition))
    with second, told():
        pairs = frame(run, "coactivation")
        drawn = routing.pairs(pairs, int(layer), condition, dark=dark())
        chart(drawn, key="pairs", caption=routing.pairs_caption(pairs, int(layer), condition))


def told_by(run: Run) -> None:
    """Association with each way to label, beside the controls; names of all experts."""
    rows = frame(run, "specialization")
    kinds = list(dict.fromkeys(rows.loc[rows["null_type"].notna(), "labels"]))
    labels = pick("By", kinds, "by", words=specialization.words)
    with told():
        drawn = specialization.by_layer(rows, labels, dark=dark())
        chart(drawn, key="association", caption=specialization.by_layer_caption(rows, labels))
    if "names" in run.table_names():
        entry_panel(find("specialization-names"), run)
    identity = rows[rows["labels"] == "token"]
    if len(identity):
        st.markdown("**What the token alone says of its experts**, I(expert; token) in nats; chance: closed form")
        small_table(identity[["condition", "layer", "mi", "expected_label", "n_tokens", "n_types"]])


def search(run: Run) -> None:
    """Where one token goes, in every layer."""
    held = explorer(run)
    condition = chosen_condition(held.conditions())
    token = st.text_input("Token", key="token", bind="query-params", placeholder="the")
    if not token:
        st.caption("Type a token: its experts in every layer, against the load of each.")
        return
    asked = Asked(0, 0, token=token)
    with told():
        layers = held.routes(condition).layers
        tables = [held.shares(condition, layer, asked).assign(layer=layer) for layer in layers]
        n = int(tables[0]["n"].sum() // max(held.routes(condition).k, 1))
        if not n:
            st.info(f"“{plain(token)}” is no token of this text; longer words are several tokens.")
            return
        st.caption(f"{n:,} times in the text.")
        for rows in tables:
            best = rows.nlargest(6, "n").query("n > 0")
            words = ", ".join(
                f"expert {r['expert']} {r['share']:.0%} (load {r['base']:.0%})" for r in best.to_dict("records")
            )
            st.markdown(f"Layer {rows['layer'].iloc[0]}: {words}")


def snapshots_of(run: Run) -> list[int]:
    """Training steps at which the run counted word classes; none if it is not about snapshots."""
    if not {"by_class", "specialization", "snapshots"} <= set(run.table_names()):
        return []
    return [int(step) for step in sorted(frame(run, "by_class")["step"].unique())]


@st.cache_data(max_entries=8, show_spinner=False)
def snapshot_cells(folder: str, step: int) -> DataFrame:
    """The cells of one snapshot."""
    return reading.cells_of_step(open_run(Path(folder)).table("by_class"), step)


@st.cache_data(max_entries=4, show_spinner=False)
def token_cells(folder: str) -> DataFrame:
    """The cells of the commonest tokens."""
    return reading.cells_of_tokens(open_run(Path(folder)).table("by_token"))


def compare(run: Run) -> None:
    """Two maps side by side: layers, routers, models or snapshots of a training."""
    fitting = [r.name for r in runs() if {"cells", "specialization"} <= set(r.table_names()) or snapshots_of(r)]
    against: specialization.Against = pick(  # type: ignore[assignment]
        "Lift over",
        list(NULLS),
        "null",
        place=partial(st.segmented_control, required=True),
        words=NULLS.__getitem__,
    )
    shown: dict[str, DataFrame] = {}
    for side, place in zip(("left", "right"), st.columns(2, gap="large"), strict=True):
        with place, told():
            other = open_run(pick("Run", fitting, f"run_{side}", default=run.name if run.name in fitting else None))
            steps = snapshots_of(other)
            told_apart = frame(other, "specialization")
            if steps:
                late = steps[-1] if side == "right" else steps[len(steps) // 2]
                step = pick("Training step", steps, f"step_{side}", default=late, words="{:,}".format)
                cells = snapshot_cells(str(other.path), step)
                told_apart = told_apart[told_apart["step"] == step]
            else:
                cells = frame(other, "cells")
            options = [c for c in CONDITIONS if c in set(cells["condition"])]
            condition = pick("Router", options, f"router_{side}", words=CONDITIONS.__getitem__)
            mine = cells[cells["condition"] == condition]
            labels = pick("By", list(dict.fromkeys(mine["labels"])), f"by_{side}", words=specialization.words)
            layers = [str(i) for i in sorted(mine["layer"].unique())]
            default = layers[min(1, len(layers) - 1) if side == "right" and not steps else 0]
            layer = pick("Layer", layers, f"layer_{side}", default=default)
            drawn = specialization.heat_map(cells, int(layer), labels, condition, against, dark=dark())
            words = specialization.heat_map_caption(cells, int(layer), labels, condition, against)
            chart(drawn, key=f"map-{side}", caption=words)
            shown[side] = mine[(mine["labels"] == labels) & (mine["layer"] == int(layer))]
            told_apart = told_apart.query("condition == @condition and labels == @labels")
            row = told_apart[told_apart["layer"] == int(layer)].iloc[0]
            st.metric(
                "I(expert; label)",
                f"{row['mi']:.4f} nats",
                delta=f"type null {row['null_type']:.4f}, z {row['z_type']:.1f}",
                delta_color="off",
                delta_arrow="off",
                help=f"95% interval {row['low']:.4f} to {row['high']:.4f}; {row['n_tokens']:,.0f} tokens.",
            )
    if len(shown) == 2:
        matching(*shown.values())


def matching(first: DataFrame, second: DataFrame) -> None:
    """Which expert on the left is which on the right."""
    with told():
        st.subheader("Which expert on the left is which on the right?", anchor=False)
        pairs, said = matched(first, second)
        st.caption(plain(said))
        small_table(pairs, expert="left", partner="right", rival="next best", label="most in common")


@st.cache_resource(max_entries=1, show_spinner=False)
def _model(source: str) -> object:
    from probes import open_model

    return open_model(source)


def try_sentence(run: Run) -> None:
    """Route a typed sentence, edit it, and see what moved."""
    source = str(run.settings["model"] if run.kind == "probe.experts" else MODEL)
    st.caption(f"Routed by {plain(os.path.basename(source))}, here and now; nothing leaves this machine.")
    text = st.text_area(
        "Sentence", key="sentence", bind="query-params", placeholder="We will not tire, and we will win."
    )
    edited = st.text_area(
        "Edited", key="edited", bind="query-params", help="The same sentence, changed: see what moves."
    )
    if not text.strip():
        st.caption("Type a sentence: its tokens, their word classes and their experts in every layer.")
        return
    from data.wordclass import default_tagger
    from probes import sentence

    with told():
        with st.spinner("opening the model"):
            model = _model(source)
        before = sentence.route(model, text, default_tagger())  # type: ignore[arg-type]
        st.markdown("**As typed**")
        chart(figures.sentence(before, dark=dark()), key="typed", caption="The heaviest expert; hover for all.")
        classes = before.drop_duplicates("place")
        st.markdown(
            " · ".join(f"{plain(t)} {plain(c)}" for t, c in zip(classes["token"], classes["word_class"], strict=True))
        )
        if edited.strip() and edited != text:
            after = sentence.route(model, edited, default_tagger())  # type: ignore[arg-type]
            moved = sentence.changes(before, after)
            st.markdown("**As edited**")
            kept = moved["kept"].dropna()
            words = f"{kept.mean():.0%} of the experts of the tokens that stayed are the same." if len(kept) else ""
            chart(figures.sentence(after, moved, dark=dark()), key="edited-figure", caption=words)
            changed = moved[(moved["gained"] != "") | (moved["was"] < 0)]
            st.dataframe(changed.assign(token=changed["token"].map(repr)), hide_index=True, width="stretch")
