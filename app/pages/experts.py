"""Experts: which tokens each is used for, next to what chance and token identity give; down to the sentences."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st
from pandas import DataFrame

from app import experts as reading
from app.experts import CONDITIONS, Asked, Explorer
from app.figures import experts as figures
from app.figures import routing, specialization
from app.figures.catalogue import find
from app.panels import chart, choose_run, dark, downloads, entry_panel, frame, live, plain, table_panel, title, told
from app.routing import MODEL
from data.runs import Run, open_run

HINT = "sparsescope probe experts --model tinymoe --tokens 100000"
TABLES = (
    "routing",
    "load",
    "coactivation",
    "by_class",
    "transitions",
    "paths",
    "specialization",
    "cells",
    "names",
)
NULLS = {"base": "share in the text", "null": "token identity"}
ANY = "all"


@st.cache_resource(max_entries=3, show_spinner=False)
def _explorer(folder: str, changed: int) -> Explorer:
    return Explorer(reading.Path(folder))


def explorer(run: Run) -> Explorer:
    """The run's routed tokens, read again when they have changed."""
    return _explorer(str(run.path), (run.path / "routes.parquet").stat().st_mtime_ns)


def pick(label: str, options: list[str], key: str, place: Callable[..., str] = st.selectbox, **more: object) -> str:
    """A choice kept in the address; one that another run does not offer is forgotten."""
    if st.session_state.get(key) not in (None, *options):
        st.session_state.pop(key)
    if st.session_state.get(key) is not None:
        more.pop("index", None)  # what was chosen, or clicked, stands
    return place(label, options, key=key, bind="query-params", **more)


def chosen_condition(held: list[str]) -> str:
    """The trained model or one of its baselines."""
    options = [c for c in CONDITIONS if c in held]
    return pick(
        "Router",
        options,
        "router",
        place=partial(st.segmented_control, default=options[0], required=True),
        format_func=CONDITIONS.get,
        help="The trained model, or a baseline: random weights; random directions that choose on the trained router's "
        "input; a router that knows nothing but the token (hash).",
    )


def clicked(key: str, across: str, down: str) -> None:
    """A cell was clicked: take its coordinates over into the choices of the page."""
    points = st.session_state[key].selection.points
    if points:
        x, y, *_ = points[0]["customdata"]
        st.session_state[across], st.session_state[down] = x, y


def cell_map(figure: object, key: str, across: str, down: str, caption: str) -> None:
    """A map whose cells can be clicked."""
    alt = (figure.layout.meta or {}).get("alt")  # type: ignore[attr-defined]
    st.plotly_chart(
        figure,
        theme=None,
        width="stretch",
        key=key,
        alt=alt,
        on_select=partial(clicked, key, across, down),
        selection_mode="points",
        config={"displaylogo": False, "displayModeBar": False},
    )
    st.caption(plain(caption) + " Click a cell for its sentences.")


def explore(run: Run) -> None:
    """The map, and below it the expert that was clicked and its sentences."""
    cells = frame(run, "cells")
    condition = chosen_condition(list(cells["condition"].unique()))
    mine = cells[cells["condition"] == condition]
    kinds = list(dict.fromkeys(mine["labels"]))
    top = st.columns([2, 1, 3])
    labels = pick("By", kinds, "by", place=top[0].selectbox, format_func=specialization.words)
    against: specialization.Against = pick(  # type: ignore[assignment]
        "Lift over",
        list(NULLS),
        "null",
        place=partial(top[2].segmented_control, default="base", required=True),
        format_func=NULLS.get,
        help="The label's share in the text, or what exchanging the routing of token types of like frequency gives: "
        "the null that any router by token identity passes.",
    )
    layers = [str(i) for i in sorted(mine["layer"].unique())]
    tied = str(specialization.of_layer(cells, None, labels, condition)["layer"].iloc[0])
    layer = pick("Layer", layers, "layer", place=top[1].selectbox, index=layers.index(tied))
    rows = mine[(mine["labels"] == labels) & (mine["layer"] == int(layer))]
    common = rows.groupby("label")["base"].first().sort_values(ascending=False).index.astype(str).tolist()
    experts = [str(e) for e in sorted(rows["expert"].unique())]
    within, over = st.tabs(["All labels of one layer", "One label over all layers"])
    sharpest = reading.sharpest(rows)
    label = st.session_state.get("label") or sharpest["label"]
    expert = st.session_state.get("expert") or str(sharpest["expert"])
    with within, told():
        figure = specialization.heat_map(cells, int(layer), labels, condition, against, dark=dark())
        figures.clickable(figure, dark=dark())
        if label in common and expert in experts:
            figures.mark(figure, label, expert, dark=dark())
        words = specialization.heat_map_caption(cells, int(layer), labels, condition, against)
        cell_map(figure, "map-of-layer", "label", "expert", words)
        if labels == "word_class" and condition == "real":
            downloads(find("specialization-cells"), run)
    with over, told():
        shown = str(label) if label in common else common[0]
        figure = figures.over_depth(cells, shown, labels, condition, against, dark=dark())
        figures.clickable(figure, dark=dark())
        figures.mark(figure, expert, layer, dark=dark())
        cell_map(figure, "map-over-depth", "expert", "layer", figure.layout.meta["alt"])
    left, right = st.columns(2)
    first = experts.index(str(sharpest["expert"]))
    expert = pick(f"Expert of layer {layer}", experts, "expert", place=left.selectbox, index=first)
    first = common.index(str(sharpest["label"]))
    label = pick("Label", common, "label", place=right.selectbox, index=first, help="Whose sentences are shown.")
    card(run, condition, int(layer), int(expert), rows)
    found_sentences(run, condition, Asked(int(layer), int(expert), labels, label))


def card(run: Run, condition: str, layer: int, expert: int, rows: DataFrame) -> None:
    """All there is about one expert."""
    st.subheader(f"Expert {expert} of layer {layer}", anchor=False)
    held = run.table_names()
    if "names" in held:
        named = frame(run, "names")
        one = named[(named["condition"] == condition) & (named["layer"] == layer) & (named["expert"] == expert)]
        if len(one):
            row = one.iloc[0]
            evidence = f": {plain(row['evidence'])}" if row["evidence"] else " (no label stands beyond both nulls)"
            st.markdown(f"**{plain(row['name'])}**{evidence}")
            if row.get("tokens"):
                st.markdown(f"Tokens that say most about it: {plain(row['tokens'])}")
    numbers(run, condition, layer, expert)
    left, right = st.columns(2, gap="large")
    with left, told():
        chart(
            figures.profile(rows, expert, dark=dark()), key="profile", caption="Bars: 95% Wilson intervals of shares."
        )
    with right, told():
        neighbours(run, condition, layer, expert)
    if "experts" in held or "worth" in held:
        worth(run, layer, expert)


def numbers(run: Run, condition: str, layer: int, expert: int) -> None:
    """Load of the expert, where the pass counted it."""
    load = frame(run, "load")
    one = load[(load["condition"] == condition) & (load["layer"] == layer) & (load["expert"] == expert)]
    if not len(one):
        return
    row = one.iloc[0]
    first, second, third = st.columns(3)
    even = f"even {row['even']:.1%}"
    quiet: dict[str, Any] = {"delta_color": "off", "delta_arrow": "off"}
    spread = f"95% interval {row['low']:.2%} to {row['high']:.2%}; {row['n_tokens']:,} tokens."
    first.metric("Share of slots", f"{row['share']:.2%}", delta=even, help=spread, **quiet)
    spread = f"95% interval {row['weight_low']:.2%} to {row['weight_high']:.2%}."
    second.metric("Share of gate weight", f"{row['weight_share']:.2%}", delta=even, help=spread, **quiet)
    third.metric("Slots", f"{row['slots']:,}")


def neighbours(run: Run, condition: str, layer: int, expert: int) -> None:
    """Experts it works with, where its tokens come from and go to, its commonest tokens."""
    tabs = st.tabs(["Tokens", "Chosen with", "Routes in", "Routes out"])
    with tabs[0], told():
        if condition == "real":
            rows = reading.by_token(run, layer, expert)
            shown = rows[["token", "n", "share", "rate"]].assign(token=rows["token"].map(repr))
            _table(shown, share="of its slots", rate="of the token's slots")
        else:
            st.caption("Tokens are counted for the trained model.")
    with tabs[1], told():
        pairs = frame(run, "coactivation")
        mine = pairs[(pairs["condition"] == condition) & (pairs["layer"] == layer) & (pairs["expert"] == expert)]
        columns = ["other", "share", "low", "high", "expected"]
        _table(mine.assign(over=mine["share"] / mine["expected"]).nlargest(10, "over")[columns], expected="independent")
    links = frame(run, "transitions")
    links = links[links["condition"] == condition]
    with tabs[2]:
        into = links[(links["next_layer"] == layer) & (links["next_expert"] == expert)].nlargest(10, "n")
        _table(into[["layer", "expert", "n", "share", "low", "high", "expected"]], expected="of all tokens")
    with tabs[3]:
        out = links[(links["layer"] == layer) & (links["expert"] == expert)].nlargest(10, "n")
        _table(out[["next_layer", "next_expert", "n", "share", "low", "high", "expected"]], expected="of all tokens")


def worth(run: Run, layer: int, expert: int) -> None:
    """What the expert is worth, from every table of the run that has one row or more about it."""
    with st.expander("What it is worth: ablation, constancy, vocabulary"):
        for name in run.table_names():
            if not name.startswith(("experts", "worth")):
                continue
            with told():
                rows = frame(run, name)
                if {"layer", "expert"} <= set(rows.columns):
                    st.markdown(plain(specialization.words(name)))
                    _table(
                        rows[(rows["layer"] == layer) & (rows["expert"] == expert)].drop(columns=["layer", "expert"])
                    )


def _table(rows: DataFrame, **names: str) -> None:
    """A small table; shares in per cent."""
    shares = [c for c in ("share", "low", "high", "expected", "rate", "label_share", "label_base") if c in rows]
    shown = rows.rename(columns=names)
    config = {names.get(c, c): st.column_config.NumberColumn(format="percent") for c in shares}
    st.dataframe(shown, hide_index=True, width="stretch", column_config=config)


def found_sentences(run: Run, condition: str, asked: Asked) -> None:
    """Sentences in which tokens went to the expert, with filters."""
    st.subheader(f"Sentences: {plain(asked.label)} at expert {asked.expert} of layer {asked.layer}", anchor=False)
    with told():
        held = explorer(run)
        columns = st.columns([2, 2, 2, 1])
        domains = [ANY, *sorted(set(held.documents.get("domain", [])))]
        domain = pick("Domain", domains, "domain", place=columns[0].selectbox)
        documents = [ANY, *(f"{i}: {name}" for i, name in enumerate(held.documents["document"].astype(str)))]
        document = pick("Document", documents, "document", place=columns[1].selectbox)
        token = columns[2].text_input("Token", key="token", bind="query-params", help="Only this token; case aside.")
        orders = ["strongest", "first", "random"]
        order = pick("Order", orders, "order", place=columns[3].selectbox)
        wanted = Asked(
            asked.layer,
            asked.expert,
            asked.labels,
            asked.label,
            None if domain == ANY else domain,
            None if document == ANY else int(document.split(":")[0]),
            token or None,
            order,  # type: ignore[arg-type]
        )
        n, of = held.count(condition, wanted)
        st.caption(
            f"{n:,} of {of:,} such tokens went here"
            + (f" ({n / of:.1%})" if of else "")
            + ". Shade: the expert's part of the token's gate weight; hover a token for its word class and all its "
            "experts; the token that was found is underlined."
        )
        rows = held.find(condition, wanted)
        st.html(reading.sentences(held, condition, wanted, rows) if len(rows) else "<p>None.</p>")


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
    if len(mine):
        st.markdown(f"**Most frequent paths** through layers {plain(mine['layers'].iloc[0])}")
        columns = ["path", "n", "share", "low", "high", "expected", "label", "label_share", "label_base"]
        names = {"label": "mostly", "label_share": "of its tokens", "label_base": "of all tokens"}
        _table(mine[columns].head(20), expected="independent layers", **names)


def loads(run: Run) -> None:
    """How evenly experts are used, layer by layer, and together with whom."""
    measured = frame(run, "routing")
    measure = pick("Measure", routing.measures(measured), "measure", format_func=lambda m: routing.MEASURES[m])
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
    labels = pick("By", kinds, "by", format_func=specialization.words)
    with told():
        drawn = specialization.by_layer(rows, labels, dark=dark())
        chart(drawn, key="association", caption=specialization.by_layer_caption(rows, labels))
    if "names" in run.table_names():
        entry_panel(find("specialization-names"), run)
    identity = rows[rows["labels"] == "token"]
    if len(identity):
        st.markdown("**What the token alone says of its experts**, I(expert; token) in nats; chance: closed form")
        _table(identity[["condition", "layer", "mi", "expected_label", "n_tokens", "n_types"]])


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


def compare(run: Run) -> None:
    """Two maps side by side: layers, routers, models or snapshots."""
    from app.panels import runs

    fitting = [r.name for r in runs() if {"cells", "names"} <= set(r.table_names())]
    for side, place in zip(("left", "right"), st.columns(2, gap="large"), strict=True):
        with place, told():
            default = fitting.index(run.name) if run.name in fitting else 0
            other = open_run(pick("Run", fitting, f"run_{side}", index=default))
            cells = frame(other, "cells")
            options = [c for c in CONDITIONS if c in set(cells["condition"])]
            condition = pick("Router", options, f"router_{side}", format_func=CONDITIONS.get)
            mine = cells[cells["condition"] == condition]
            labels = pick("By", list(dict.fromkeys(mine["labels"])), f"by_{side}", format_func=specialization.words)
            layers = [str(i) for i in sorted(mine["layer"].unique())]
            default = min(1, len(layers) - 1) if side == "right" else 0
            layer = pick("Layer", layers, f"layer_{side}", index=default)
            drawn = specialization.heat_map(cells, int(layer), labels, condition, "base", dark=dark())
            words = specialization.heat_map_caption(cells, int(layer), labels, condition, "base")
            chart(drawn, key=f"map-{side}", caption=words)
            told_apart = frame(other, "specialization").query("condition == @condition and labels == @labels")
            row = told_apart[told_apart["layer"] == int(layer)].iloc[0]
            st.metric(
                "I(expert; label)",
                f"{row['mi']:.4f} nats",
                delta=f"type null {row['null_type']:.4f}, z {row['z_type']:.1f}",
                delta_color="off",
                delta_arrow="off",
                help=f"95% interval {row['low']:.4f} to {row['high']:.4f}; {row['n_tokens']:,.0f} tokens.",
            )


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


VIEWS = {
    "explore": ("Explore", explore, {"cells", "load", "transitions", "coactivation"}),
    "specialization": ("Specialization", told_by, {"specialization"}),
    "depth": ("Through depth", depth, {"transitions", "paths"}),
    "load": ("Load", loads, {"routing", "load", "coactivation"}),
    "token": ("Search a token", search, {"cells"}),
    "compare": ("Compare", compare, {"cells", "names", "specialization"}),
    "sentence": ("Try a sentence", try_sentence, {"load"}),
}


def body(run: Run) -> None:
    """The view that was chosen; others cost nothing."""
    held = set(run.table_names())
    if "inputs" in held:
        with told():
            inputs = frame(run, "inputs").set_index("role")["title"]
            st.markdown(" · ".join(plain(inputs[role]) for role in ("model", "mixture", "corpus") if role in inputs))
    offered = [name for name, (_, _, needs) in VIEWS.items() if needs <= held]
    if not offered:
        st.caption("The first numbers come with the first shard of text.")
        return
    view = pick(
        "View",
        offered,
        "view",
        place=partial(st.segmented_control, default=offered[0], required=True, label_visibility="collapsed"),
        format_func=lambda name: VIEWS[name][0],
    )
    with told():
        VIEWS[view][1](run)
    with st.expander("Tables"):
        table_panel(run, TABLES)


title(
    "Experts", "Which tokens is each expert used for, and is that more than chance or the token's identity would give?"
)
chosen = choose_run(("load", "coactivation"), hint=HINT)
if chosen is not None:
    live(chosen, body)
