"""Kinds of neurons, keeping few, and the ladder: figures against their frames, pages on runs, verbs on bad input."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas import DataFrame
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

import app
from app.cli import cli
from app.figures import catalogue, keeping, kinds, ladder, theme, thresholds
from app.figures.sources import BIBTEX
from data import Run, Tables
from data.runs import create

SHARES = {"dead": 0.01, "rare": 0.04, "specialised": 0.4, "intermediate": 0.25, "generalized": 0.3}
NAMES = [n for n in catalogue.catalogue() if n.split("-")[0] in ("keeping", "kinds", "ladder", "thresholds")]


def make() -> Tables:
    """Frames of the shape that the probes make; nothing here is a measurement."""
    bands = [
        {"condition": c, "layer": layer, "kind": kind, "share": s, "low": s - 0.01, "high": s + 0.01}
        for c in ("real", "random_init")
        for layer in range(4)
        for kind, s in SHARES.items()
    ]
    contexts = [
        {
            "condition": c,
            "layer": layer,
            "frequency": 0.3 + 0.1 * i,
            "low": 0.2 + 0.1 * i,
            "high": 0.4 + 0.1 * i,
            "i": i,
        }
        for c in ("real", "random_init")
        for layer in range(2)
        for i in range(3)
    ]
    context = DataFrame(contexts).assign(n_tokens=500)
    ratios = {"oracle": (1.05, 8.0), "static": (6.0, 900.0)}
    kept = [
        {"choice": c, "layer": -1, "share": s, "ppl_ratio": r, "ratio_low": r * 0.9, "ratio_high": r * 1.1}
        for c, pair in ratios.items()
        for s, r in zip((0.5, 0.1), pair, strict=True)
    ]
    kept.append({"choice": "none", "layer": -1, "share": 1.0, "ppl_ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0})
    errors = [
        {"condition": cond, "choice": c, "layer": layer, "share": s, "error": e, "low": e - 0.01, "high": e + 0.01}
        for cond, c, e in (("real", "oracle", 0.2), ("real", "static", 0.6), ("random_init", "oracle", 0.25))
        for layer in range(3)
        for s in (0.5, 0.1)
    ]
    summary = [
        {"condition": c, "layer": 3, "kind": k, "n_neurons": 100, "n_with_class": n, "n_claims": n, "n_tests": 1700}
        for c, n in (("real", 60), ("random_init", 10), ("exchanged", 0))
        for k in ("rare", "specialised")
    ]
    classes = {"condition": "real", "layer": 3, "neuron": 7, "kind": "specialised", "frequency": 0.1, "rate": 0.5}
    classes |= {"word_class": "NOUN", "low": 0.4, "high": 0.6, "elsewhere": 0.02, "n_fired": 50, "n_tokens": 100}
    tokens = {"layer": 3, "neuron": 7, "kind": "specialised", "frequency": 0.1, "rank": 0, "token": " river"}
    rungs = [("embedding", -1, 49152, 1 / 49152, 300.0), ("moe", 0, 64, 0.125, 900.0), ("dense", 1, 1536, 0.38, 1000.0)]
    steps = [
        {
            "rung": r,
            "layer": layer,
            "n_units": n,
            "active_share": s,
            "low": s,
            "high": s,
            "n_sets": sets,
            "condition": c,
        }
        for c in ("real", "random_init")
        for r, layer, n, s, sets in rungs
    ]
    limits = [
        {"condition": c, "layer": layer, "measure": m, "setting": t, "value": v, "low": v - 0.01, "high": v + 0.01}
        for c in ("real", "random_init")
        for layer in range(4)
        for m, v in (("density_cett", 0.3), ("threshold_teal", 0.07))
        for t in (0.1, 0.2, 0.5)
    ]
    return Tables(
        thresholds=DataFrame(limits).assign(n_tokens=2_000),
        kinds=DataFrame(bands).assign(n_neurons=64, n_tokens=2_000),
        positions=context.assign(position=context["i"].astype(str), first=context["i"]).drop(columns="i"),
        word_classes=context.assign(word_class=context["i"].map({0: "DET", 1: "NOUN", 2: "VERB"})).drop(columns="i"),
        keeping=DataFrame(kept).assign(n_tokens=2_000, n_documents=8, loss=3.0),
        keeping_points=DataFrame(
            {"choice": ["oracle", "static"], "share": [0.7, 0.99], "low": [0.6, 0.98], "high": [0.8, 1.0]}
        ),
        keeping_errors=DataFrame(errors).assign(n_tokens=2_000),
        class_summary=DataFrame(summary).assign(n_tokens=2_000),
        neuron_classes=DataFrame([classes | {"p_label": 1e-9, "p_type": 1e-6, "p": 1e-6, "q": 1e-4}]),
        neuron_tokens=DataFrame([tokens | {"n_fired": 9, "n_seen": 10, "rate": 0.9, "low": 0.6, "high": 0.98}]),
        ladder=DataFrame(steps).assign(model="m", n_tokens=1_000),
    )


@pytest.fixture(scope="module")
def lazy() -> Tables:
    return make()


@pytest.fixture
def lazy_run(runs_folder: Path, lazy: Tables) -> Run:
    made = create("lazy", {"model": "smollm2-135m"}, kind="probe.keep", root_folder=runs_folder, seed=0)
    made.save_tables({name: pd.DataFrame(frame) for name, frame in lazy.items()})
    made.report("done", 1, 1)
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", ["screen", "column"])
def test_same_tables_same_figure_with_numbers_in_the_caption(name: str, width: theme.Width, lazy: Tables) -> None:
    entry = catalogue.find(name)
    again = Tables({k: v.copy() for k, v in lazy.items()})
    first = entry.draw(lazy, width=width).to_json()
    assert entry.draw(again, width=width).to_json() == first
    assert entry.draw(lazy, width=width, dark=True).to_json() != first
    caption = entry.caption(lazy)
    assert "tokens" in caption and any(c.isdigit() for c in caption)
    assert entry.draw(lazy).layout.meta["alt"] == caption
    assert len(entry.plotted(lazy)) and set(entry.sources) <= set(BIBTEX)


def test_bars_of_a_condition_add_up_to_all_neurons(lazy: Tables) -> None:
    drawn = kinds.bands(lazy.kinds).data
    np.testing.assert_allclose(np.sum([bar.x for bar in drawn], axis=0), 100)
    assert [bar.name for bar in drawn] == list(kinds.KINDS.values())
    stacked = kinds.by_layer(lazy.kinds).data
    np.testing.assert_allclose(np.sum([bar.y for bar in stacked], axis=0), 100)


def test_the_curve_begins_at_the_whole_model(lazy: Tables) -> None:
    lines = [t for t in keeping.curve(lazy).data if t.showlegend is not False]
    assert [line.name for line in lines] == [keeping.CHOICES["oracle"], keeping.CHOICES["static"]]
    assert (list(lines[0].x), list(lines[0].y)) == ([10, 50, 100], [8.0, 1.05, 1.0])
    caption = keeping.curve_caption(lazy)
    assert "1.05 [0.945, 1.16] at 50%" in caption and "1% higher (dotted) when 70% [60%, 80%]" in caption


def test_errors_are_those_of_the_share_asked_for(lazy: Tables) -> None:
    assert set(keeping.of_share(lazy.keeping_errors, 0.12)["share"]) == {0.1}
    names = [t.name for t in keeping.errors(lazy.keeping_errors, 0.1).data]
    assert names == [*map(keeping.CHOICES.get, ("oracle", "static")), "random weights"]


def test_thresholds_are_drawn_at_the_setting_asked_for(lazy: Tables) -> None:
    drawn = thresholds.by_layer(lazy.thresholds, "threshold_teal", 0.2)
    assert list(drawn.data[0].y) == [0.07] * 4 and "below which 20%" in drawn.layout.meta["alt"]
    with pytest.raises(ValueError, match=r"was not measured at 0\.3; it was at 0\.1, 0\.2"):
        thresholds.select(lazy.thresholds, "density_cett", 0.3)
    with pytest.raises(ValueError, match="there are density_cett, threshold_teal"):
        thresholds.select(lazy.thresholds, "density_best")


def test_a_lookup_stands_once_on_the_ladder(lazy: Tables) -> None:
    drawn = ladder.ladder(lazy.ladder).data
    assert [t.name for t in drawn].count("embedding lookup") == 1 and len(drawn) == 5
    moe = next(t for t in drawn if t.name == "mixture of experts, trained, real text")
    assert (moe.x[0], moe.y[0]) == (12.5, 90.0)


def show(page: str, **query: str) -> AppTest:
    test = AppTest.from_file(str(Path(app.__file__).parent / "pages" / f"{page}.py"), default_timeout=60)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


@pytest.mark.parametrize(
    ("page", "view"), [("laziness", v) for v in ("kinds", "classes", "keeping")] + [("ladder", "")]
)
def test_pages_show_a_run_and_help_without_one(page: str, view: str, lazy_run: Run) -> None:
    query = {"view": view} if view else {}
    test = show(page, **query)
    assert not test.exception and not test.error and not any("Nothing to show" in m.value for m in test.markdown)
    lazy_run.delete()
    test = show(page, **query)
    assert not test.exception and not test.error and "sparsescope probe" in test.code[0].value


def test_the_calculator_states_the_known_block_and_refuses_the_impossible(runs_folder: Path) -> None:
    assert {m.label: m.value for m in show("ladder").metric}["Parameters"] == "90,177,536"
    sixty_four = {m.label: m.value for m in show("ladder", experts="64", k="8").metric}
    assert sixty_four["Expert combinations"] == "4,426,165,368"
    assert "choose 1 \\<\\= k" in show("ladder", experts="4", k="8").error[0].value


def test_ladder_verb_prints_the_known_numbers() -> None:
    out = CliRunner().invoke(cli, ["ladder"]).output
    assert "90,177,536" in out and "344.00" in out and "21.50" in out
    assert "4,426,165,368" in CliRunner().invoke(cli, ["ladder", "--experts", "64", "--k", "8"]).output
    assert "120" in CliRunner().invoke(cli, ["ladder", "--experts", "16", "--k", "2"]).output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ladder", "--experts", "4", "--k", "8"], "choose 1 <= k <= n_experts"),
        (["probe", "keep", "--choice", "best"], "choices"),
        (["probe", "keep", "--model", "nowhere/at-all"], "nowhere"),
        (["probe", "keep", "--share", "1.5"], "shares.0: Input should be less than or equal to 1, not 1.5\n"),
        (["probe", "kinds", "--tokens", "0"], "n_tokens"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments: list[str], says: str, runs_folder: Path) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and says in result.output and "Traceback" not in result.output


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tiny model with its tokenizer, and three short documents, on disk."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from tests.probes.tiny import SENTENCES, tiny_hf

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    folder, texts = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("texts")
    tiny_hf().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token=special[0]).save_pretrained(folder)
    for number in range(4):
        (texts / f"{number}.txt").write_text(" ".join(SENTENCES) * 2, encoding="utf-8")
    return str(folder), str(texts)


@pytest.mark.parametrize(
    ("arguments", "tables"),
    [
        (["keep", "--share", "0.5", "--choice", "oracle", "--one-layer", "0.1"], {"keeping", "keeping_errors"}),
        (["kinds", "--layer", "1"], {"class_summary", "neuron_tokens"}),
        (["ladder"], {"ladder"}),
        (["sparsity", "--word-classes", "--control", "random_init"], {"kinds", "thresholds", "word_classes"}),
    ],
)
def test_verbs_fill_a_run(
    arguments: list[str], tables: set[str], tiny_model: tuple[str, str], runs_folder: Path
) -> None:
    model, texts = tiny_model
    given = ["probe", *arguments, "--model", model, "--corpus", texts, "--tokens", "300", "--name", "one"]
    result = CliRunner().invoke(cli, [*given, "--dtype", "float32"])
    assert result.exit_code == 0, result.output
    run = Run(runs_folder / "one")
    assert tables <= set(run.table_names()) and run.progress["state"] == "done"
    assert {"model", "corpus"} <= set(run.table("inputs")["role"])
