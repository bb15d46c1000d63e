"""Routed tokens and what is read off them, against the slow way; planted routers; labels of one's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas import DataFrame
from sklearn.metrics import mutual_info_score

from data import Cancelled, routed, runs
from data.corpus import Corpus
from data.labels import LexiconTagger, RegexTagger, read_labels
from probes import LanguageModel, open_model, routed_counts, routing
from probes.routed_labels import Labelled, RoutedText, used
from probes.routed_tokens import hash_router
from probes.stream import StreamConfig
from tests.probes.tiny import tiny_hf

E, K, N = 6, 2, 500
READ = StreamConfig(tokens_per_document=80, window=32, batch_tokens=128, shard_tokens=120)


class Initials:
    """A tagger whose word class is the first letter's case: nothing to install."""

    name = "initials"

    def tag(self, texts: Any) -> list[Any]:
        return RegexTagger(r"(?P<UPPER>[A-Z]\w*)|(?P<LOWER>[a-z]\w*)|(?P<PUNCT>[.,;])").tag(texts)


@pytest.fixture(scope="module")
def model(tokenizer: object) -> LanguageModel:
    return open_model(tiny_hf("olmoe", num_experts=E, num_experts_per_tok=K), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def measured(model: LanguageModel, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run = runs.create("r", {}, kind="test", root_folder=tmp_path_factory.mktemp("runs"))
    asked: dict[str, Any] = {"tagger": Initials(), "n_permutations": 20, "config": READ, "run": run}
    own = {"numbers": RegexTagger(r"\d+"), "animate": LexiconTagger({"she": "person", "he": "person"})}
    return run, routing.measure(model, corpus, N, labels=own, control_tokens=200, **asked)


def put(folder: Path, layers: list[dict[str, np.ndarray]], n_experts: int, k: int, condition: str = "real") -> None:
    n = len(layers[0]["experts"])
    if condition == "real":
        columns: dict[str, Any] = {"document": np.arange(n) // 10, "position": np.arange(n) % 10}
        columns |= {"in_window": 5 + np.arange(n) % 9, "sentence": np.arange(n) // 5, "token_id": np.arange(n) % 7}
        words = np.array(["a", "b"], dtype=object)[np.arange(n) % 2]
        columns |= {"text": words, "word_class": words, "fine": words, "domain": words}
        routed.save_tokens_part(folder, 0, columns)
    routed.save_routes_part(folder, condition, 0, layers)
    routed.put_together(folder, condition, [0], list(range(len(layers))), [n_experts] * len(layers), k)


def layer_of(experts: Any, weights: Any = None) -> dict[str, np.ndarray]:
    experts = np.asarray(experts)
    weights = np.full(experts.shape, 0.5) if weights is None else np.asarray(weights, dtype=float)
    return {"kept": np.ones(len(experts), dtype=bool), "experts": experts, "weights": weights}


def test_routes_on_disk_are_those_of_the_model_token_by_token(model: LanguageModel, corpus: Corpus, measured) -> None:
    """Against every document run alone, one window at a time."""
    run, _ = measured
    routes, table = routed.Routes(run.path), routed.TokenTable(run.path)
    assert routes.n_tokens == len(table) == N and routes.layers == [0, 1, 2] and routes.k == K
    row = 0
    for document in corpus.tokenize(model.tokenizer, n_tokens=N, tokens_per_document=80, tagger=Initials()):
        assert table.rows(row, row + len(document), ["text"])["text"].tolist() == document.text.tolist()
        for window in document.windows(32, begin_token_id=model.document_token):
            seen: dict[int, dict[str, torch.Tensor]] = {}
            ids = torch.from_numpy(np.asarray(window.token_ids, dtype=np.int64))[None]
            model.observe(ids, ("expert_index", "expert_weight"), lambda i, found, seen=seen: seen.update({i: found}))
            n = len(window) - 1
            for layer in routes.layers:
                index, weight = (seen[layer][s][0, 1:].numpy() for s in ("expert_index", "expert_weight"))
                assert (routes.experts(layer)[row : row + n] == index).all()
                np.testing.assert_allclose(routes.weights(layer)[row : row + n], weight, atol=1e-3)
            row += n
    assert row == N


def test_one_row_group_a_layer(measured) -> None:
    import pyarrow.parquet as pq

    run, _ = measured
    assert pq.ParquetFile(run.path / "routes.parquet").num_row_groups == 3
    assert pq.ParquetFile(run.path / "by_token.parquet").num_row_groups == 3
    assert not (run.path / routed.PARTS).exists(), "what a pass leaves on its way is taken away"


def test_counts_by_class_and_by_token_sum_to_the_slots_of_labelled_tokens(measured) -> None:
    run, tables = measured
    routes, table = routed.Routes(run.path), routed.TokenTable(run.path)
    code, words = table.codes("word_class")
    for layer in routes.layers:
        experts, kept = routes.experts(layer), routes.kept(layer)
        of = tables.by_class.query("condition == 'real' and labels == 'word_class' and layer == @layer")
        for (expert, label), n in of.set_index(["expert", "label"])["n"].items():
            assert n == (experts[kept & (code == words.index(label))] == expert).sum()
        assert of["n"].sum() == K * (kept & (code != words.index(""))).sum() if "" in words else K * kept.sum()
        tokens = tables.by_token.query("layer == @layer")
        assert tokens["n"].sum() == K * kept.sum()
        pair = tokens.iloc[0]
        used_by = (experts == pair.expert).any(axis=1) & kept & (table.column("token_id") == pair.token_id)
        assert pair.n == used_by.sum()


def test_every_condition_is_measured_and_controls_read_the_first_tokens(measured) -> None:
    run, tables = measured
    conditions = {"real", "random_init", "random_directions", "hash"}
    assert set(tables.specialization["condition"]) == set(tables.by_class["condition"]) == conditions
    assert routed.Routes(run.path, "random_init").n_tokens == 200
    assert routed.Routes(run.path, "hash").n_tokens == routed.Routes(run.path, "random_directions").n_tokens == N
    assert set(tables.routing["condition"]) == {"real", "random_init"}
    assert {"word_class", "position", "numbers", "animate", "token"} <= set(tables.specialization["labels"])
    assert set(run.table_names()) >= set(tables)


def test_the_hash_router_knows_the_token_and_nothing_else(measured) -> None:
    run, tables = measured
    routes, ids = routed.Routes(run.path, "hash"), routed.TokenTable(run.path).column("token_id")
    for layer in routes.layers:
        assert len(np.unique(np.column_stack([ids, routes.experts(layer)]), axis=0)) == len(np.unique(ids))
    within = tables.specialization.query("condition == 'hash' and labels == 'word_class'")["within"]
    assert within.abs().max() < 1e-9, "given the token nothing is left to say"


def test_hash_router_follows_the_load_and_never_repeats_an_expert() -> None:
    ids = np.arange(20_000)
    chosen = hash_router(ids, np.array([50, 30, 15, 5, 0]), 1)
    np.testing.assert_allclose(np.bincount(chosen.ravel(), minlength=5) / 20_000, [0.5, 0.3, 0.15, 0.05, 0], atol=0.01)
    several = np.sort(hash_router(ids, np.full(6, 10), 3, seed=1), axis=1)
    assert (np.diff(several, axis=1) > 0).all()
    assert (
        hash_router(np.array([4, 9, 4]), np.full(6, 1), 2)[[0]]
        == hash_router(np.array([4, 9, 4]), np.full(6, 1), 2)[[2]]
    ).all()


def test_random_directions_spread_their_load_as_the_model_does(measured) -> None:
    run, _ = measured
    real, random = routed.Routes(run.path), routed.Routes(run.path, "random_directions")
    for layer in real.layers:
        a, b = (np.bincount(r.experts(layer)[r.kept(layer)].ravel(), minlength=E) / N for r in (real, random))
        assert np.abs(a - b).max() < 0.15 and (real.experts(layer) != random.experts(layer)).any()


def test_random_directions_are_the_mean_over_several_routers(model: LanguageModel, corpus: Corpus, measured) -> None:
    run, tables = measured
    found = tables.specialization.query("labels == 'word_class'").set_index(["condition", "layer"])
    code, words = routed.TokenTable(run.path).codes("word_class")
    labelled = np.array([word != "" for word in words])[code]
    for layer in routed.Routes(run.path).layers:
        drawn = []
        for name in ("random_directions", *(f"random_directions_{draw}" for draw in range(1, routing.DRAWS))):
            routes = routed.Routes(run.path, name)
            rows = routes.kept(layer) & labelled
            drawn.append(mutual_info_score(np.repeat(code[rows], K), routes.experts(layer)[rows].ravel()))
        row, real = found.loc[("random_directions", layer)], found.loc[("real", layer)]
        assert row["n_draws"] == routing.DRAWS == len(set(drawn))
        assert row["mi"] == pytest.approx(np.mean(drawn)) and row["sd_draws"] == pytest.approx(np.std(drawn, ddof=1))
        assert real["z_draws"] == pytest.approx((real["mi"] - row["mi"]) / row["sd_draws"])
    assert found.loc["hash", "z_draws"].isna().all()
    with pytest.raises(ValueError, match="draws=1"):
        routing.measure(model, corpus, draws=1)


def test_further_draws_stop_after_the_shard_that_holds_enough(model: LanguageModel, corpus: Corpus, tmp_path) -> None:
    run = runs.create("short", {}, kind="test", root_folder=tmp_path)
    asked: dict[str, Any] = {"tagger": Initials(), "n_permutations": 5, "config": READ, "run": run}
    routing.measure(model, corpus, N, controls=("random_directions",), association_tokens=150, draws=2, **asked)
    first, second = (routed.Routes(run.path, f"random_directions{end}") for end in ("", "_1"))
    assert first.n_tokens == N and 150 <= second.n_tokens < N
    assert (first.experts(0)[: second.n_tokens] != second.experts(0)).any()


def test_a_stopped_measurement_goes_on_to_the_same_tables(
    model: LanguageModel, corpus: Corpus, measured, tmp_path
) -> None:
    _, whole = measured
    run = runs.create("stopped", {}, kind="test", root_folder=tmp_path)

    def stop(done: float, total: float, note: str = "") -> None:
        if "routing_real" in note and done > 0.6:
            raise Cancelled

    own = {"numbers": RegexTagger(r"\d+"), "animate": LexiconTagger({"she": "person", "he": "person"})}
    asked: dict[str, Any] = {"tagger": Initials(), "n_permutations": 20, "config": READ, "run": run}
    asked |= {"labels": own, "control_tokens": 200}
    with pytest.raises(Cancelled):
        routing.measure(model, corpus, N, progress=stop, **asked)
    assert "load" in run.table_names(), "what was counted is there"
    again = routing.measure(model, corpus, N, **asked)
    for name, frame in whole.items():
        assert frame.equals(again[name]), name


def test_planted_transitions_are_found_with_what_chance_gives(tmp_path: Path) -> None:
    first = np.tile([[0, 2], [1, 2]], (50, 1))
    second = 1 - first[:, :1]
    layers = [
        layer_of(first, np.tile([0.9, 0.1], (100, 1))),
        layer_of(np.column_stack([second, np.full(100, 2)]), np.tile([0.9, 0.1], (100, 1))),
    ]
    put(tmp_path, layers, 3, 2)
    found = routed_counts.transitions(routed.Routes(tmp_path), "real").set_index(["expert", "next_expert"])
    assert list(found.index) == [(0, 1), (1, 0)], "the expert with the largest weight, flipped from layer to layer"
    assert found["share"].eq(1).all() and found["expected"].eq(0.5).all() and found["n"].eq(50).all()
    words = Labelled("word_class", np.arange(100) % 2, ["even", "odd"])
    paths = routed_counts.paths(routed.Routes(tmp_path), words, "real").set_index("path")
    assert paths.loc["0>1", ["share", "expected", "label", "label_share", "label_base"]].tolist() == [
        0.5,
        0.25,
        "even",
        1,
        0.5,
    ]


def test_dropped_slots_and_dense_layers_are_no_choices(tmp_path: Path) -> None:
    experts = np.tile([[0, 1], [2, -1]], (30, 1))
    put(tmp_path, [layer_of(experts)], 3, 2)
    routes = routed.Routes(tmp_path)
    held = used(routes, 0, np.zeros(60, dtype=int), 1_000)
    assert held.tokens is not None and len(held.experts) == 90 and (held.experts >= 0).all()
    text = RoutedText(tmp_path, DataFrame({"document": ["d"] * 6}), {})
    assert routed_counts.by_label(routes, text.labels("word_class"), "real")["n"].sum() == 90
    with pytest.raises(ValueError, match="layer 3 routes nothing"):
        routes.experts(3)


def test_a_sentence_is_found_around_its_token(tmp_path: Path) -> None:
    put(tmp_path, [layer_of(np.zeros((40_000, 1), dtype=int))], 2, 1)
    table = routed.TokenTable(tmp_path)
    found = table.sentence(16_385, ["word_class"])
    assert found.index.tolist() == [16_385, 16_386, 16_387, 16_388, 16_389]
    assert table.sentence(39_999).index.tolist() == list(range(39_995, 40_000))
    assert table.sentence(0).index.tolist() == [0, 1, 2, 3, 4]


def test_labels_of_ones_own(tmp_path: Path, model: LanguageModel, corpus: Corpus, measured) -> None:
    run, tables = measured
    table, own = routed.TokenTable(run.path), tables.routed_labels
    digits = np.array([any(c.isdigit() for c in text) for text in table.column("text")])
    assert (own["numbers"] == "match")[digits].all() and not (own["numbers"] == "match")[~digits].any()
    (tmp_path / "words.csv").write_text("word,label\nnaïve,new\nshe,person\n", encoding="utf-8")
    tagger = read_labels(tmp_path / "words.csv")
    assert [(w.start.tolist(), w.universal.tolist()) for w in tagger.tag(["A Naïve one"])] == [([2], ["new"])]  # type: ignore[union-attr]
    (tmp_path / "documents.csv").write_text("document,era\ndocument-00.txt,old\n", encoding="utf-8")
    assert read_labels(tmp_path / "documents.csv", "era") == {"document-00.txt": "old"}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"controls": ("nothing",)}, "'nothing' is not a control"),
        ({"labels": {"x": RegexTagger("qqqq")}}, "name no token of the text"),
        ({"labels": {"x": {"nobody": "a"}}}, "no document read is named"),
        ({"metadata": ("colour",)}, "documents have no 'colour'"),
    ],
)
def test_impossible_requests_are_answered(model, corpus, asked, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        routing.measure(model, corpus, 100, tagger=None, config=READ, **{"controls": (), **asked})


def test_bad_labels_and_dense_models_are_refused(tmp_path: Path, tiny: LanguageModel, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="has no experts"):
        routing.measure(tiny, corpus, 100)
    with pytest.raises(ValueError, match="not a regular expression"):
        RegexTagger("(")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns a, b"):
        read_labels(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="cannot be read as labels"):
        read_labels(tmp_path / "missing.csv")
