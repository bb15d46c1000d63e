"""What a newcomer sees before anything is measured: the runs that ship, on their pages."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import data
from app.claims import NOT_YET
from app.claims import find as find_claim
from app.claims.ledger import ledger
from app.cli import cli
from app.figures.catalogue import find
from data import runs
from tests.app.test_pages import show

SHIPPED = Path(data.__file__).parent / "bundled" / "runs"


@pytest.fixture(autouse=True)
def only_what_ships(nothing_ships: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "SHIPPED", SHIPPED)
    monkeypatch.setenv("SPARSESCOPE_RUNS", str(tmp_path))


@pytest.mark.parametrize("page", ["experts", "training", "claims", "runs", "figures"])
def test_a_page_opens_on_what_ships(page: str) -> None:
    test = show(page)
    assert not test.exception and not test.error
    assert not any("Nothing to show" in m.value for m in test.markdown)


def test_the_list_of_runs_names_what_ships_after_ones_own(tmp_path: Path) -> None:
    assert "no runs in" in (told := CliRunner().invoke(cli, ["runs"]).output) and "came demo, " in told
    runs.create("demo", {}, kind="demo", root_folder=tmp_path)
    mine, shipped = CliRunner().invoke(cli, ["runs"]).output.split("with the installation came ")
    assert "demo" in mine and "demo" not in shipped.split(", "), "a run of the same name hides the one that ships"


def test_what_ships_was_measured_to_its_end_on_the_model_that_ships() -> None:
    names = {run.name for run in runs.known_runs()}
    assert {"tinymoe-experts", "tinymoe-snapshots"} <= names
    for run in runs.known_runs():
        assert run.progress["state"] == "done" and run.provenance["seed"] == 0
    words = runs.open_run("tinymoe-experts").table("specialization").query("labels == 'word_class'")
    assert (words.query("condition == 'real'")["z_type"] > 5).all()
    assert (words.query("condition == 'random_init'")["z_type"].abs() < 3).all()
    assert len(words.query("condition == 'real'")) == 4


def test_meaning_comes_before_assignments_settle() -> None:
    run = runs.open_run("tinymoe-snapshots")
    held = {name: run.table(name) for name in ("saturation", "specialization", "snapshots")}
    rows = find("snapshots-routing").plotted(held).set_index("step")
    early = rows.loc[164]
    excess = rows["information"] - rows["null_type"]
    assert early["saturation"] < 0.2 and excess[164] > 0.5 * excess.iloc[-1]


@pytest.mark.parametrize(
    ("name", "claim"),
    [("granularity", "finer-experts-specialise-more"), ("experts-number", "more-experts-tend-to-constants")],
)
def test_a_claim_about_series_is_decided_by_one_that_ships(name: str, claim: str) -> None:
    run = runs.open_run(name)
    assert not (run.path / "models").exists()
    asked = run.settings
    assert find_claim(claim).fits(asked)
    tables = run.tables()
    assert len(tables["series_models"]) == asked["seeds"] * len(tables["series_models"]["variant"].unique())
    found = find_claim(claim).judge(tables)
    assert found.verdict != NOT_YET and found.control and found.n, found.measured


def test_what_ships_of_worth_leaves_no_more_than_all_unexplained_and_decides_its_claims() -> None:
    run = runs.open_run("tinymoe-worth")
    fits = run.table("fits").query("n_fit >= 4 * d_model")
    assert len(fits) > 120 and fits["affine_fvu"].between(0, 1).all() and fits["constant_fvu"].between(0, 1).all()
    assert set(run.table("damage")["layer"]) == {0, 1, 2, 3} and len(run.table("curves")) == 32
    verdicts = ledger(runs.known_runs()).set_index("claim")["verdict"]
    for claim in ("association-predicts-damage", "early-experts-alike", "experts-are-affine", "syntax-over-domain"):
        assert verdicts[claim] != "not yet measured"


def test_the_runs_on_the_list_of_those_that_ship_are_there() -> None:
    listed = (SHIPPED / "README.md").read_text()
    names = {line.split("`")[1] for line in listed.splitlines() if line.startswith("| `")}
    assert len(names) >= 13 and names <= {run.name for run in runs.known_runs()}


def test_most_claims_are_decided_by_what_ships() -> None:
    from app.claims.ledger import ledger

    table = ledger(runs.known_runs()).set_index("claim")
    decided = table[table["verdict"] != NOT_YET]
    assert len(decided) >= 24 and (decided["control"] != "").all() and (decided["n"] != "").all()
