"""Experts: which tokens each is used for, next to what chance and token identity give; down to the sentences."""

from functools import partial
from typing import Any

import streamlit as st
from pandas import DataFrame

from app import experts as reading
from app.address import pick
from app.expert_views import (
    NULLS,
    chosen_condition,
    compare,
    depth,
    explorer,
    loads,
    search,
    small_table,
    token_cells,
    told_by,
    try_sentence,
)
from app.explorer import Asked, sentences
from app.figures import experts as figures
from app.figures import specialization
from app.figures.catalogue import find
from app.panels import chart, choose_run, dark, downloads, frame, live, measured_on, plain, table_panel, title, told
from data.runs import Run

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
WORTH = {
    "damage": "Loss change in nats when it is replaced, by word class",
    "fits": "How near a constant and an affine map come",
    "vectors": "What its mean output raises in the vocabulary",
}
ANY = "all"


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
    kinds = list(dict.fromkeys(cells.loc[cells["condition"] == condition, "labels"]))
    kinds += ["token"] if condition == "real" and "by_token" in run.table_names() else []
    top = st.columns([2, 1, 3])
    labels = pick("By", kinds, "by", place=top[0].selectbox, words=specialization.words)
    against: specialization.Against = pick(  # type: ignore[assignment]
        "Lift over",
        list(NULLS)[: 1 if labels == "token" else None],  # a token's identity is the label itself
        "null",
        place=partial(top[2].segmented_control, required=True),
        words=NULLS.__getitem__,
        help="The label's share in the text, or what exchanging the routing of token types of like frequency gives: "
        "the null that any router by token identity passes.",
    )
    cells = token_cells(str(run.path)) if labels == "token" else cells
    mine = cells[cells["condition"] == condition]
    layers = [str(i) for i in sorted(mine["layer"].unique())]
    tied = str(specialization.of_layer(cells, None, labels, condition)["layer"].iloc[0])
    layer = pick("Layer", layers, "layer", place=top[1].selectbox, default=tied)
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
    expert = pick(f"Expert of layer {layer}", experts, "expert", place=left.selectbox, default=str(sharpest["expert"]))
    label = pick(
        "Label",
        common,
        "label",
        place=right.selectbox,
        default=str(sharpest["label"]),
        help="Whose sentences are shown.",
    )
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
            if row["evidence"]:
                st.markdown(f"**{plain(row['name'])}**: {plain(row['evidence'])}")
            else:
                st.markdown(
                    f"**No name**: no label stands beyond both nulls at a false discovery rate of {reading.NAME_Q:.0%}."
                )
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
    if condition == "real":
        with told():
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
            small_table(shown, share="of its slots", rate="of the token's slots")
        else:
            st.caption("Tokens are counted for the trained model.")
    with tabs[1], told():
        pairs = frame(run, "coactivation")
        mine = pairs[(pairs["condition"] == condition) & (pairs["layer"] == layer) & (pairs["expert"] == expert)]
        columns = ["other", "share", "low", "high", "expected"]
        small_table(
            mine.assign(over=mine["share"] / mine["expected"]).nlargest(10, "over")[columns], expected="independent"
        )
    links = frame(run, "transitions")
    links = links[links["condition"] == condition]
    with tabs[2]:
        into = links[(links["next_layer"] == layer) & (links["next_expert"] == expert)].nlargest(10, "n")
        small_table(into[["layer", "expert", "n", "share", "low", "high", "expected"]], expected="of all tokens")
    with tabs[3]:
        out = links[(links["layer"] == layer) & (links["expert"] == expert)].nlargest(10, "n")
        small_table(
            out[["next_layer", "next_expert", "n", "share", "low", "high", "expected"]], expected="of all tokens"
        )


def worth(run: Run, layer: int, expert: int) -> None:
    """What the loss says of the expert: by word class, what could stand in for it, what it writes."""
    other = reading.worth_of(run)
    with st.expander("What it is worth: loss without it, constancy, vocabulary"):
        if other is None:
            st.caption("Not measured yet for this model; in a terminal:")
            st.code("sparsescope probe worth --model tinymoe", language="bash")
            return
        st.caption(f"From run {plain(other.name)}.")
        for name, words in WORTH.items():
            if name not in other.table_names():
                continue
            rows = frame(other, name)
            mine = rows[(rows["layer"] == layer) & (rows["expert"] == expert)].drop(columns=["layer", "expert"])
            if "token" in mine:
                mine = mine.assign(token=mine["token"].map(repr))
            st.markdown(f"**{words}**")
            st.dataframe(mine, hide_index=True, width="stretch", key=f"worth-{name}")


def found_sentences(run: Run, condition: str, asked: Asked) -> None:
    """Sentences in which tokens went to the expert, with filters."""
    st.subheader(f"Sentences: {plain(asked.label)} at expert {asked.expert} of layer {asked.layer}", anchor=False)
    with told():
        held = explorer(run)
        columns = st.columns([2, 2, 2, 1])
        domains = [ANY, *sorted(set(held.documents.get("domain", [])))]
        domain = pick("Domain", domains, "domain", place=columns[0].selectbox)
        named = [f"{i}: {name}" for i, name in enumerate(held.documents["document"].astype(str))]
        numbers = [ANY, *map(str, range(len(named)))]
        document = pick(
            "Document",
            numbers,
            "document",
            place=columns[1].selectbox,
            words=lambda i: i if i == ANY else named[int(i)],
        )
        token = columns[2].text_input("Token", key="token", bind="query-params", help="Only this token; case aside.")
        orders = ["strongest", "first", "random"]
        order = pick("Order", orders, "order", place=columns[3].selectbox)
        wanted = Asked(
            asked.layer,
            asked.expert,
            asked.labels,
            asked.label,
            None if domain == ANY else domain,
            None if document == ANY else int(document),
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
        st.html(sentences(held, condition, wanted, rows) if len(rows) else "<p>None.</p>")


VIEWS = {
    "explore": ("Explore", explore, {"cells", "load", "transitions", "coactivation"}),
    "specialization": ("Specialization", told_by, {"specialization"}),
    "depth": ("Through depth", depth, {"transitions", "paths"}),
    "load": ("Load", loads, {"routing", "load", "coactivation"}),
    "token": ("Search a token", search, {"cells"}),
    "compare": ("Compare", compare, {"cells", "specialization"}),
    "sentence": ("Try a sentence", try_sentence, {"load"}),
}


def body(run: Run) -> None:
    """The view that was chosen; others cost nothing."""
    held = set(run.table_names())
    measured_on(run, ("model", "mixture", "corpus"))
    offered = [name for name, (_, _, needs) in VIEWS.items() if needs <= held]
    if not offered:
        st.caption("The first numbers come with the first shard of text.")
        return
    view = pick(
        "View",
        offered,
        "view",
        place=partial(st.segmented_control, required=True, label_visibility="collapsed"),
        words=lambda name: VIEWS[name][0],
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
