"""The memories page, its cards and its figures on frames of the shape the probe makes."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from pandas import DataFrame

from app.figures import memory as figures
from app.figures.catalogue import find
from app.memory import card
from data import Run, Tables
from data.runs import create
from tests.app.test_pages import show, words

NASTY = "<script>alert(1)</script> <img src=x onerror=alert(2)> & \"quoted\" 'and' $x^2$ **bold**"


def make_memory(text: str = "the cat sat") -> Tables:
    agreement, neurons, triggers, values = [], [], [], []
    for layer in (2, 20):
        for sign, factor in (("+", 1), ("-", -1)):
            agreement.append((layer, "real", sign, 0.004, 0.002, 0.008, 0.001, 0.001, 6, 1500, 4080))
            agreement.append((layer, "random_init", sign, 0.0, 0.0, 0.002, 0.0001, 1.0, 0, 1500, 4080))
            for neuron in (5, 7, 9):
                agrees = neuron == 7 and sign == "+"
                row = (layer, neuron, sign, 0.25, factor * 3.5, text, text if agrees else "other", agrees, neuron != 9)
                neurons.append((*row, 4080))
                if neuron == 9:
                    continue
                for rank in (1, 2):
                    triggers.append(
                        (layer, neuron, sign, rank, factor * 4.0 / rank, "a & b", 12, text, text, text, "x")
                    )
                    values.append((layer, neuron, sign, rank, f"{text}{rank}", 5.0 / rank))
    at = ["layer", "neuron", "sign"]
    shares = ["rate", "low", "high", "chance", "p_value", "n_agree", "n_neurons", "n_tokens"]
    facts = ["frequency", "activation", "next_token", "value_token", "agrees", "card", "n_tokens"]
    where = ["rank", "activation", "document", "position", "before", "token", "after", "next_token"]
    return Tables(
        memory_agreement=DataFrame(agreement, columns=["layer", "condition", "sign", *shares]),
        memory_neurons=DataFrame(neurons, columns=[*at, *facts]),
        memory_triggers=DataFrame(triggers, columns=[*at, *where]),
        memory_values=DataFrame(values, columns=[*at, "rank", "token", "score"]),
    )


@pytest.fixture
def measured(runs_folder: Path) -> Run:
    run = create("memories", {"model": "smollm2-135m"}, kind="probe.memory", root_folder=runs_folder)
    run.save_tables(make_memory())
    run.report("done", 1, 1)
    return run


class Seen(HTMLParser):
    """Tags and text as a browser would read them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_states_agreement_chance_and_one_neuron(measured: Run) -> None:
    test = show("memories")
    assert not test.exception and not test.error
    text = words(test).replace("\\", "")
    assert "24 of 6,000 pairs (0.40%; chance 0.10%)" in text and "random weights: 0 of 6,000" in text
    assert "95% Wilson intervals" in text and "4,080 tokens" in text
    assert test.selectbox(key="neuron").value == "7", "neurons that agree come first"
    assert "9" not in test.selectbox(key="neuron").options, "only cards can be chosen"
    metrics = {m.label: m for m in test.metric}
    assert metrics["Fires on"].value == "25.0%"
    assert metrics["Agrees"].value == "yes"
    assert metrics["Agree in layer 2"].value == "0.40%"
    assert metrics["Agree in layer 2"].delta == "chance 0.10%"


def test_choosing_layer_neuron_and_sign_and_a_link_to_them(measured: Run) -> None:
    test = show("memories")
    test.selectbox(key="layer").set_value("20").run()
    test.selectbox(key="neuron").set_value("5").run()
    assert not test.exception
    assert {m.label: m.value for m in test.metric}["Agrees"] == "no"
    linked = show("memories", layer="20", neuron="5", sign="negative")
    assert not linked.exception
    assert (linked.selectbox(key="layer").value, linked.selectbox(key="neuron").value) == ("20", "5")
    assert {m.label: m.value for m in linked.metric}["Strongest activation"] == "-3.5"
    assert show("memories", layer="20", neuron="7").selectbox(key="neuron").value == "7"
    gone = show("memories", layer="20", neuron="999")
    assert not gone.exception and gone.selectbox(key="neuron").value == "7"


def test_text_of_a_corpus_never_becomes_markup(measured: Run) -> None:
    measured.save_tables(make_memory(NASTY))
    test = show("memories")
    assert not test.exception
    shown = [str(element.value) for element in (*test.markdown, *test.caption)]
    assert not any("<script>" in text or "<img" in text or "**bold**" in text for text in shown)
    seen = Seen(card(make_memory(NASTY).memory_triggers.query("layer == 2 and neuron == 5 and sign == '+'")))
    assert set(seen.tags) == {"ol", "li", "span", "bdi", "mark"}
    assert seen.text.count(NASTY) == 6, "before, token and after of two triggers, letter by letter"


def test_a_card_marks_the_token_in_its_text() -> None:
    made = {"rank": [2, 1], "activation": [1.5, 2.0], "document": ["d", "d"], "position": [7, 1200]}
    made |= {"before": ["one\n", "a "], "token": ["two", "b"], "after": [" three", "\u202ec\x00"]}
    source = card(DataFrame(made))
    assert ">two</mark> three" in source and "one⏎<mark" in source
    assert source.index(">b</mark>") < source.index(">two</mark>"), "the strongest first"
    assert "token 1,200" in source and "+1.5" in source
    assert "\u202e" not in source and "\x00" not in source, "no sign that turns the line round"


def test_half_a_run_shows_what_there_is(measured: Run) -> None:
    (measured.path / "memory_values.parquet").unlink()
    test = show("memories")
    assert not test.exception and not test.error
    assert "Values are written when the text has been read." in words(test)
    for name in ("memory_triggers", "memory_neurons"):
        (measured.path / f"{name}.parquet").unlink()
    assert not show("memories").exception


def test_an_empty_folder_names_the_command(runs_folder: Path) -> None:
    test = show("memories")
    assert not test.exception and "sparsescope probe memory" in words(test)


@pytest.mark.parametrize("dark", [False, True])
def test_the_figure_draws_rates_chance_and_controls(dark: bool) -> None:
    table = make_memory().memory_agreement
    figure = find("memory-agreement").draw({"memory_agreement": table}, dark=dark)
    drawn = {t.name: list(t.y) for t in figure.data}
    assert drawn["positive triggers, trained, real text"] == [0.4, 0.4]
    assert drawn["negative triggers, random weights"] == [0, 0]
    assert drawn["chance: triggers and values paired at random"] == pytest.approx([0.1, 0.1])
    with pytest.raises(ValueError, match="lacks the columns"):
        figures.agreement(table.drop(columns="chance"))


def test_value_tokens_are_bars_from_the_best_down_and_plain_text() -> None:
    values = make_memory("a <b>x</b>\n").memory_values
    figure = figures.value_tokens(values, layer=2, neuron=5)
    bar = figure.data[0]
    assert dict(zip(bar.y, bar.x, strict=True)) == {1: 5.0, 2: 2.5}
    assert figure.layout.yaxis.autorange == "reversed"
    labels = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert labels[1] == "a␣&lt;b>x&lt;/b>⏎1"
    assert "no value" in figures.value_tokens(values, layer=3, neuron=5).layout.annotations[0].text
