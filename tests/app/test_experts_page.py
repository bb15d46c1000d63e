"""The explorer of experts on a real run: what it shows, what a click leads to, and that text stays text."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app import experts as reading
from app.explorer import Asked, Explorer, sentences
from app.figures import experts as figures
from app.figures import routing, specialization
from app.figures.catalogue import catalogue
from data.routed import Routes, TokenTable
from data.runs import Run
from tests.app.routed_runs import NASTY, Classes, routed_run
from tests.app.test_memories_page import Seen
from tests.app.test_pages import show, words


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return routed_run(tmp_path_factory.mktemp("routed") / "runs")


@pytest.fixture
def measured(made: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(made.path.parent))
    return made


VIEWS = ("explore", "specialization", "depth", "load", "token", "compare", "sentence")


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_opens(measured: Run, view: str) -> None:
    test = show("experts", view=view)
    assert not test.exception and not test.error
    assert test.segmented_control(key="view").value == view


def test_explore_states_numbers_with_interval_null_and_size(measured: Run) -> None:
    test = show("experts")
    text = words(test).replace("\\", "")
    assert "cells tested stand at a false discovery rate of 5% against exchanged labels and the type null" in text
    assert "such tokens went here" in text
    metrics = {m.label: m for m in test.metric}
    load = measured.table("load").query("condition == 'real'").set_index(["layer", "expert"])
    row = load.loc[(int(test.selectbox(key="layer").value), int(test.selectbox(key="expert").value))]
    assert metrics["Share of slots"].value == f"{row['share']:.2%}" and metrics["Share of slots"].delta == "even 16.7%"


def test_a_link_to_a_cell_and_its_filters(measured: Run) -> None:
    asked = {"layer": "1", "expert": "3", "label": "PUNCT", "by": "word_class", "router": "hash", "domain": "odd"}
    test = show("experts", **asked)
    assert not test.exception and not test.error
    assert "Sentences: PUNCT at expert 3 of layer 1" in words(test)
    routes, table = Routes(measured.path, "hash"), TokenTable(measured.path)
    fit = (table.column("word_class") == "PUNCT") & (table.column("domain") == "odd") & routes.kept(1)
    went = int(((routes.experts(1) == 3).any(axis=1) & fit).sum())
    assert f"{went} of {int(fit.sum())} such tokens went here" in words(test).replace("\\", "").replace(",", "")


def test_search_finds_a_token_in_every_layer(measured: Run) -> None:
    text = words(show("experts", view="token", token=".")).replace("\\", "")
    assert "Layer 0: expert" in text and "Layer 1: expert" in text
    assert "is no token of this text" not in text
    assert "no token of this text" in " ".join(str(i.value) for i in show("experts", view="token", token="qq").info)


def test_a_sentence_is_routed_and_its_edit_compared(measured: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.wordclass.default_tagger", Classes)
    typed = "She counted the lamps."
    test = show("experts", view="sentence", sentence=typed, edited="She counted the seven lamps.")
    assert not test.exception and not test.error
    text = words(test).replace("\\", "")
    assert (
        "As typed" in text and "As edited" in text and "of the experts of the tokens that stayed are the same" in text
    )
    nothing = show("experts", view="sentence", sentence="   ")
    assert not nothing.exception and not nothing.error


def test_tokens_found_are_those_that_went_to_the_expert(made: Run) -> None:
    held, routes = Explorer(made.path), Routes(made.path)
    for order in ("strongest", "first", "random"):
        asked = Asked(0, 2, "word_class", "NOUN", order=order, n=7)  # type: ignore[arg-type]
        rows = held.find("real", asked)
        assert len(rows) == 7 and (held.tokens.column("word_class")[rows] == "NOUN").all()
        assert (routes.experts(0)[rows] == 2).any(axis=1).all() and routes.kept(0)[rows].all()
    weights = routes.weights(0)[rows := held.find("real", Asked(0, 2, n=50))]
    of = weights[np.arange(len(rows)), (routes.experts(0)[rows] == 2).argmax(axis=1)]
    assert (np.diff(of) <= 0).all(), "the strongest first"
    all_of = Explorer(made.path).shares("real", 1, Asked(1, 0, token="the"))
    text = [str(t).strip().lower() for t in TokenTable(made.path).column("text")]
    went = (np.array(text) == "the") & routes.kept(1)
    assert all_of["n"].sum() == 2 * went.sum()


def test_a_label_of_positions_is_read_too(made: Run) -> None:
    held = Explorer(made.path)
    n, of = held.count("real", Asked(0, 1, "position", "8-15"))
    at = TokenTable(made.path).column("in_window")
    kept = Routes(made.path).kept(0)
    assert of == (kept & (at >= 8) & (at <= 15)).sum() and 0 < n < of


def test_text_of_a_corpus_never_becomes_markup(measured: Run) -> None:
    held = Explorer(measured.path)
    asked = Asked(0, int(Routes(measured.path).experts(0)[held.token_text() == NASTY][0, 0]), token=NASTY)
    source = sentences(held, "real", asked, held.find("real", asked))
    seen = Seen(source)
    assert set(seen.tags) == {"ol", "li", "span", "bdi"} and NASTY in seen.text
    test = show("experts", token=NASTY)
    shown = [str(e.value) for e in (*test.markdown, *test.caption, *test.subheader)]
    assert not any("<script>" in text for text in shown)


def test_token_in_a_sentence_is_marked_once_and_shaded_by_weight(made: Run) -> None:
    held = Explorer(made.path)
    asked = Asked(0, 2, n=1)
    rows = held.find("real", asked)
    several = sentences(held, "real", asked, held.find("real", Asked(0, 2, n=60)), most=5)
    assert several.count("<li") == 5 and several.count("text-decoration:underline") >= 5
    source = sentences(held, "real", asked, rows)
    assert source.count("text-decoration:underline") == 1
    found = held.sentence("real", 0, int(rows[0]))
    shaded = sum(2 in e[w > 0] for e, w in zip(found["experts"], found["weights"], strict=True))
    assert shaded <= source.count("background:") <= sum(2 in e for e in found["experts"])


def test_half_a_run_shows_what_there_is(measured: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data.runs import create

    begun = create("begun", {"model": "m"}, kind="probe.experts", root_folder=tmp_path / "runs")
    for name in ("routing", "load", "coactivation"):
        begun.save_table(name, measured.table(name))
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path / "runs"))
    test = show("experts")
    assert not test.exception and not test.error


def test_an_empty_folder_names_the_command(runs_folder: Path) -> None:
    test = show("experts")
    assert not test.exception and "sparsescope probe experts" in words(test)


@pytest.mark.parametrize("dark", [False, True])
def test_every_figure_of_the_run_draws_with_a_caption(made: Run, dark: bool) -> None:
    held, drawn = set(made.table_names()), 0
    for entry in catalogue().values():
        if entry.name.startswith("experts-") and entry.drawable(held):
            tables = {name: made.table(name) for name in entry.needs}
            assert entry.draw(tables, dark=dark).data and "tokens" in entry.caption(tables)
            assert len(entry.plotted(tables))
            drawn += 1
    assert drawn == 6


def test_every_cell_of_a_map_can_be_clicked_and_says_what_it_holds(made: Run) -> None:
    cells = made.table("cells")
    figure = figures.clickable(specialization.heat_map(cells, 1))
    points = figure.data[-1]
    rows = cells.query("condition == 'real' and labels == 'word_class' and layer == 1")
    assert {(x, int(y)) for x, y, _ in points.customdata} == set(zip(rows["label"], rows["expert"], strict=True))
    assert points.mode == "markers" and points.selected.marker.opacity == points.unselected.marker.opacity
    over = figures.clickable(figures.over_depth(cells, "NOUN")).data[-1]
    assert {int(y) for _, y, _ in over.customdata} == {0, 1}


def test_measures_are_drawn_with_chance_and_ceiling(made: Run) -> None:
    figure = routing.by_layer(made.table("routing"), "busiest_share")
    names = {t.name: t for t in figure.data}
    assert list(names["highest possible"].y) == [50.0, 50.0] and "uniform router" in names
    with pytest.raises(ValueError, match="no measure 'x'"):
        routing.by_layer(made.table("routing"), "x")


def test_changes_of_an_edit_are_matched_by_token() -> None:
    from probes.sentence import changes

    def routed(tokens: list[str], experts: list[int]) -> pd.DataFrame:
        columns = {"place": range(len(tokens)), "token": tokens, "layer": 0, "slot": 0, "expert": experts}
        return pd.DataFrame(columns | {"word_class": "X", "weight": 1.0})

    moved = changes(routed(["a", "b", "c"], [1, 2, 3]), routed(["a", "new", "b", "c"], [1, 5, 2, 4]))
    assert moved["was"].tolist() == [0, -1, 1, 2]
    assert moved["kept"].tolist()[0] == 1 and np.isnan(moved["kept"].iloc[1]) and moved["kept"].iloc[3] == 0
    assert moved.iloc[3][["gained", "lost"]].tolist() == ["4", "3"]


def test_cells_of_a_snapshot_are_lifts_with_the_binomial_test_and_its_false_discovery_rate() -> None:
    from scipy.stats import binomtest, false_discovery_control

    counts = {("PUNCT", 0): 60, ("PUNCT", 1): 5, ("NOUN", 0): 40, ("NOUN", 1): 95}
    rows = [
        ("real", "word_class", 0, e, label, n if step else 50, step)
        for (label, e), n in counts.items()
        for step in (0, 7)
    ]
    table = pd.DataFrame(rows, columns=["condition", "labels", "layer", "expert", "label", "n", "step"])
    found = reading.cells_of_step(table, 7).set_index(["label", "expert"])
    p = [binomtest(n, 100, base).pvalue for n, base in ((60, 0.325), (5, 0.325), (40, 0.675), (95, 0.675))]
    np.testing.assert_allclose(found.loc[("PUNCT", 0), "lift"], 0.6 / 0.325)
    np.testing.assert_allclose(found["q"].sort_values(), np.sort(false_discovery_control(p)), rtol=0.5)
    assert (found["q"] < 1e-6).all() and (found["low"] < found["share"]).all()
    even = reading.cells_of_step(table, 0)
    assert (even["lift"] == 1).all() and (even["q"] > 0.05).all()
    drawn = specialization.heat_map(found.reset_index(), 0, against="base")
    assert "against the text's share alone" in drawn.layout.meta["alt"]
    with pytest.raises(ValueError, match="no type null is drawn"):
        specialization.heat_map(found.reset_index(), 0, against="null")


def test_the_cell_shown_first_is_sure_enough_for_a_name() -> None:
    from probes.expert_names import MAX_Q

    rows = [(0, "PUNCT", 0.8, 10.0, 0.04), (1, "NOUN", 0.6, 2.0, 0.001), (2, "VERB", 0.9, 0.5, 0.0)]
    cells = pd.DataFrame(rows, columns=["expert", "label", "share", "lift", "q"]).assign(n=1)
    assert reading.NAME_Q == MAX_Q and reading.sharpest(cells)["expert"] == 1
    assert reading.sharpest(cells[cells["expert"] != 1])["expert"] == 0


def test_hover_words_are_lines_and_their_label_is_escaped(made: Run) -> None:
    cells = made.table("cells").query("labels == 'word_class'").replace({"label": {"NOUN": NASTY}})
    for figure in (specialization.heat_map(cells, 0), figures.over_depth(cells, NASTY)):
        said = [line for line in np.ravel(figure.data[-1].customdata) if isinstance(line, str)]
        assert any("&lt;script&gt;" in line for line in said) and not any("<script" in line for line in said)
        assert (
            max(len(part) for line in said for part in line.split("<br>")) < 90
            and min(line.count("<br>") for line in said) >= 2
        )
    assert not any("<script" in str(x) for x in specialization.heat_map(cells, 0).data[-1].x)


def test_the_map_by_token_counts_the_slots_of_each_and_leads_to_its_sentences(measured: Run) -> None:
    by_token = measured.table("by_token")
    found = reading.cells_of_tokens(by_token, most=5)
    assert found.groupby("label")["n"].sum().min() >= by_token.groupby("token")["n"].sum().nlargest(5).min()
    comma = next(row for row in found.to_dict("records") if row["n"] > 0)
    raw = comma["label"].replace("␣", " ").replace("⏎", "\n")
    here = by_token[(by_token["layer"] == comma["layer"]) & (by_token["expert"] == comma["expert"])]
    assert comma["n"] == here.loc[here["token"] == raw, "n"].sum() and comma["n_expert"] == here["n"].sum()
    asked = {"by": "token", "layer": str(comma["layer"]), "expert": str(comma["expert"]), "label": comma["label"]}
    test = show("experts", **asked)
    assert not test.exception and not test.error
    assert f"{comma['n']:,} of" in words(test).replace("\\", "")
    assert test.segmented_control(key="null").options == ["share in the text"]
