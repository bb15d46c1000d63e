"""Verdicts are computed from tables and from nothing else: planted support, planted opposites, and nothing at all."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from typer.core import TyperGroup as Group
from typer.main import get_command
from typer.testing import CliRunner

import app
from app.claims import CLAIMS, NOT_YET, Claim, find, judge, ledger
from app.cli import cli
from app.figures.catalogue import catalogue
from app.figures.sources import BIBTEX
from data import Run
from data.runs import create
from tests.app.planted_claims import PLANTED
from tests.app.planted_tables import cells, layers, room, series

BY_NAME = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
PAGES = Path(app.__file__).parent / "pages"


def test_every_claim_is_planted_and_names_are_unique() -> None:
    assert [claim.name for claim in CLAIMS] == list(PLANTED)


@BY_NAME
def test_tables_that_support_hold_and_their_opposite_flips_the_verdict(claim: Claim) -> None:
    support, against, between = (made() if made else None for made in PLANTED[claim.name])
    assert support is not None and against is not None
    assert set(claim.needs) <= set(support)
    assert claim.judge(support).verdict == "holds"
    assert claim.judge(against).verdict == "fails here"
    if between is not None:
        assert claim.judge(between).verdict == "holds partly"


@BY_NAME
def test_without_tables_or_without_rows_nothing_is_claimed(claim: Claim) -> None:
    assert claim.judge({}).verdict == NOT_YET
    support = PLANTED[claim.name][0]()
    for name in claim.needs:
        lacking = {k: v for k, v in support.items() if k != name}
        assert name in claim.judge(lacking).measured and claim.judge(lacking).verdict == NOT_YET
    emptied = {k: v.iloc[:0] for k, v in support.items()}
    assert claim.judge(emptied).verdict == NOT_YET


@BY_NAME
def test_every_verdict_has_numbers_control_and_sample_size(claim: Claim) -> None:
    for made in PLANTED[claim.name]:
        if made is not None:
            found = claim.judge(made())
            assert any(c.isdigit() for c in found.measured) and found.control and found.n
            assert "nan" not in f"{found.measured}{found.control}{found.n}"


@BY_NAME
def test_an_entry_says_who_says_it_what_decides_it_and_where_it_is_seen(claim: Claim) -> None:
    assert claim.statement.endswith(".") and claim.said_by
    assert "holds" in claim.threshold.lower() and "partly" in claim.threshold
    assert claim.experiment.startswith("sparsescope ")
    assert set(claim.sources) <= set(BIBTEX)
    assert not claim.figure or claim.figure in catalogue()


@BY_NAME
def test_the_command_that_decides_it_and_the_page_that_shows_it_exist(claim: Claim) -> None:
    group = get_command(cli)
    for word in claim.experiment.split()[1:]:
        if not isinstance(group, Group):
            break
        assert word in group.commands, f"no verb '{word}' in: {claim.experiment}"
        group = group.commands[word]
    options = {option for parameter in group.params for option in parameter.opts}
    assert {word for word in claim.experiment.split() if word.startswith("--")} <= options
    assert (PAGES / f"{claim.page}.py").exists()


def test_a_number_without_its_control_decides_nothing() -> None:
    alone = layers("firing_frequency", real=0.03)
    found = find("neurons-active").judge(alone)
    assert found.verdict == NOT_YET and "random weights" in found.measured


def test_missing_values_decide_nothing() -> None:
    held = layers("firing_frequency", real=float("nan"), random_init=0.5)
    assert find("neurons-active").judge(held).verdict == NOT_YET
    assert find("block-is-an-embedding").judge(cells(float("nan"), 0.1)).verdict == NOT_YET


def test_a_linear_toy_and_a_series_of_another_kind_are_not_about_the_claim(runs_folder: Path) -> None:
    linear = create("linear", {"base": {"model": "linear"}}, kind="toy.sweep", root_folder=runs_folder)
    linear.save_tables(room(1.0, 1.0))
    other = create("many", {"vary": "experts"}, kind="series", root_folder=runs_folder)
    other.save_tables(series(0.3, 0.1, ("beyond_type", "purest_PUNCT"), split=True))
    table = ledger.ledger([linear, other]).set_index("claim")
    assert table.loc["more-features-than-dimensions", "verdict"] == NOT_YET
    assert table.loc["finer-experts-specialise-more", "verdict"] == NOT_YET


def test_a_series_of_unequal_compute_decides_nothing() -> None:
    held = series(0.1, 0.3, ("beyond_type", "purest_PUNCT"), split=True)
    held["series_models"].loc[held["series_models"]["n_experts"] == 32, "active"] *= 2
    found = find("finer-experts-specialise-more").judge(held)
    assert found.verdict == NOT_YET and "active parameters differ" in found.measured


@pytest.fixture
def measured(runs_folder: Path) -> Run:
    """A run that bears out two claims, and a newer one that contradicts one of them."""
    old = create("old", {}, kind="probe.sparsity", root_folder=runs_folder, seed=0)
    old.save_tables(PLANTED["neurons-active"][0]() | PLANTED["topk-is-cheap"][0]())
    return old


def test_deleting_the_run_takes_every_verdict_back(measured: Run) -> None:
    before = ledger.ledger([measured]).set_index("claim")
    assert (before["verdict"]["neurons-active"], before["run"]["neurons-active"]) == ("holds", "old")
    measured.delete()
    from data.runs import list_runs

    after = ledger.ledger(list_runs(measured.path.parent))
    assert set(after["verdict"]) == {NOT_YET} and set(after["run"]) == {""}
    assert "no run holds layers" in str(after.set_index("claim").loc["neurons-active", "measured"])


def test_the_first_run_that_decides_counts_and_damage_is_passed_over(measured: Run) -> None:
    new = create("new", {}, kind="probe.sparsity", root_folder=measured.path.parent)
    new.save_tables(PLANTED["neurons-active"][1]())
    table = ledger.ledger([new, measured]).set_index("claim")
    assert (table["verdict"]["neurons-active"], table["run"]["neurons-active"]) == ("fails here", "new")
    assert table.loc["topk-is-cheap", "run"] == "old"
    (new.path / "layers.parquet").write_bytes(b"broken")
    assert ledger.ledger([new, measured]).set_index("claim").loc["neurons-active", "run"] == "old"


def test_markdown_is_a_table_of_what_was_measured_and_a_list_of_what_was_not(measured: Run) -> None:
    text = ledger.markdown(ledger.ledger([measured]))
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 3
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines if line.startswith("|"))
    assert "**holds**" in text and "Not yet measured: " in lines[-1]


def test_the_verb_prints_the_ledger_in_four_ways(measured: Run) -> None:
    run = CliRunner().invoke
    plain = run(cli, ["claims", "old"])
    assert plain.exit_code == 0 and "About 3.5% of the neurons" in plain.output and "random weights" in plain.output
    assert "2 holds" in plain.output
    told = json.loads(run(cli, ["claims", "--json"]).output)
    assert len(told) == len(CLAIMS) and told[0]["verdict"] == "holds"
    assert run(cli, ["claims", "--csv"]).output.startswith("claim,statement")
    assert run(cli, ["claims", "--markdown"]).output.startswith("| Claim |")
    assert run(cli, ["claims", "--only", "holds", "--json"]).output.count('"claim"') == 2


def test_the_verb_refuses_in_a_sentence(runs_folder: Path) -> None:
    missing = CliRunner().invoke(cli, ["claims", "nothing"])
    assert missing.exit_code == 2 and "no run 'nothing'" in missing.output
    wrong = CliRunner().invoke(cli, ["claims", "--only", "true"])
    assert wrong.exit_code == 2 and "holds partly" in wrong.output
    assert "not yet measured" in CliRunner().invoke(cli, ["claims"]).output


def page(**query: str) -> AppTest:
    test = AppTest.from_file(str(PAGES / "claims.py"), default_timeout=60)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def test_the_page_shows_verdicts_numbers_and_controls(measured: Run) -> None:
    test = page()
    assert not test.exception and not test.error
    shown = "\n".join(str(element.value) for element in [*test.markdown, *test.caption, *test.subheader])
    assert "About 3\\.5\\%" in shown and "random weights" in shown
    assert [metric.value for metric in test.metric] == ["2", "0", "0", str(len(CLAIMS) - 2)]


def test_the_page_filters_by_verdict_and_by_words(measured: Run) -> None:
    assert len(page(verdict="holds").subheader) == 2
    found = page(words="perplexity")
    assert not found.exception and len(found.subheader) == 1


def test_the_page_on_an_empty_folder_names_what_to_do(runs_folder: Path) -> None:
    test = page()
    assert not test.exception and not test.error
    assert "sparsescope demo" in "\n".join(str(code.value) for code in test.code)


def test_judging_a_mapping_of_tables_gives_every_claim() -> None:
    assert set(judge({})) == {claim.name for claim in CLAIMS}
