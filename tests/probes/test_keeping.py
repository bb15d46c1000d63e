from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal

from data import Cancelled, runs
from data.corpus import Corpus
from probes import LanguageModel, choosing, keeping, open_model
from probes.keeping import ALL
from probes.stream import StreamConfig
from tests.probes.tiny import tiny_hf

SMALL = StreamConfig(window=32, shard_tokens=150)
SHARES = (0.5, 0.1)


def test_exactly_the_largest_are_kept() -> None:
    z = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))
    kept = keeping.keep_top(z, 0.25)
    for row, found in zip(z.flatten(0, 1), kept.flatten(0, 1), strict=True):
        inside = np.argsort(-row.abs().numpy())[:10]
        expected = torch.zeros(40)
        expected[inside] = row[inside]
        assert torch.equal(found, expected)
    ties = torch.ones(2, 8, dtype=torch.bfloat16)
    assert (keeping.keep_top(ties, 0.5) != 0).sum(dim=1).tolist() == [4, 4]
    assert torch.equal(keeping.keep_top(z, 1.0), z)
    with pytest.raises(ValueError, match=r"share=0 of neurons"):
        keeping.keep_top(z, 0)


def test_the_point_of_one_percent_is_where_the_curve_crosses_it() -> None:
    shares = np.array([0.1, 0.5, 0.8])
    assert keeping.point(shares, np.array([2.0, 0.1, 0.0]), cost=0.05) == pytest.approx(0.65)
    assert keeping.point(shares, np.array([2.0, 1.0, 0.5]), cost=0.25) == pytest.approx(0.9)
    assert np.isnan(keeping.point(shares, np.array([0.01, 0.0, 0.0]), cost=0.05))


@pytest.fixture(scope="module")
def found(tiny: LanguageModel, corpus: Corpus) -> Any:
    return keeping.measure(tiny, corpus, 400, shares=SHARES, one_layer=(0.1,), config=SMALL)


def test_losses_agree_with_zeroing_by_hand(found: Any, tiny: LanguageModel, corpus: Corpus) -> None:
    """Without the measuring code: one window at a time, neurons below the k-th largest set to 0."""
    evaluated, _ = keeping.halves(corpus, 0)

    def by_hand(z: torch.Tensor) -> torch.Tensor:
        least = z.abs().sort(dim=-1).values[..., -32:-31]
        return torch.where(z.abs() >= least, z, 0.0)

    table = found.keeping.set_index(["choice", "layer", "share"])
    row = table.loc["oracle", ALL, 0.5]
    texts = list(
        evaluated.tokenize(tiny.tokenizer, n_tokens=400, tokens_per_document=-(-400 // len(evaluated) // 31) * 31)
    )
    for edits, key in ((None, ("none", ALL, 1.0)), (by_hand, ("oracle", ALL, 0.5))):
        total, n = 0.0, 0
        with tiny.edited({(layer, "neurons"): edits for layer in range(3)} if edits else {}):
            for document in texts:
                for window in document.windows(32, begin_token_id=tiny.document_token):
                    ids = torch.from_numpy(window.token_ids.astype(np.int64))[None]
                    total, n = total + float(tiny.losses(ids).sum()), n + ids.shape[1] - 1
        assert n == row.n_tokens
        assert table.loss[key] == pytest.approx(total / n, rel=1e-5)
    assert row.change == pytest.approx(table.loss["oracle", ALL, 0.5] - table.loss["none", ALL, 1.0])
    assert row.ppl_ratio == pytest.approx(np.exp(row.change)) and row.low <= row.change <= row.high


def test_choices_that_look_at_the_token_err_least_and_random_ones_most(found: Any) -> None:
    errors = found.keeping_errors.query("condition == 'real'").groupby(["choice", "share"])["error"].mean()
    for share in SHARES:
        # one threshold keeps more neurons of the tokens that have more energy, so it may beat a fixed number a token
        assert max(errors["oracle", share], errors["threshold", share]) < errors["static", share]
        assert errors["static", share] < errors["random", share]
    assert errors["random", 0.5] == pytest.approx(0.5, abs=0.15), "half the energy goes with half the neurons"
    assert set(found.keeping_errors["condition"]) == {"real", "random_init"}
    assert set(found.keeping.query("layer != -1")["layer"]) == {0, 1, 2}


def test_errors_agree_with_the_block_itself(tiny: LanguageModel, corpus: Corpus) -> None:
    """The block's own forward pass with the edit in place, on every token."""
    from probes import stream
    from tests.probes.oracle import Everything

    known, oracle = choosing.Calibration(tiny, 0), Everything()
    config = SMALL.model_copy(update={"n_tokens": 200})
    errors = choosing.OutputErrors(
        tiny, {(i, "oracle", 0.25): known.edit(i, "oracle", 0.25) for i in range(3)}, stride=1
    )
    stream.run(tiny, corpus, {"o": oracle, "e": errors}, config)
    table = errors.tables().keeping_errors.set_index("layer")
    for layer in range(3):
        x, y = oracle.of(layer, "ffn_input"), oracle.of(layer, "ffn_output")
        with torch.no_grad(), tiny.edited({(layer, "neurons"): lambda z: keeping.keep_top(z, 0.25)}):
            edited = tiny.feed_forward(layer)(x[None])[0]
        error = (edited - y).square().sum() / y.square().sum()
        assert table.error[layer] == pytest.approx(float(error), rel=1e-4) and table.n_tokens[layer] == len(x)


def test_neurons_that_carry_everything_are_found_by_the_static_choice(corpus: Corpus, tokenizer: Any) -> None:
    hf = tiny_hf()
    with torch.no_grad():
        for layer in hf.base_model.layers:
            layer.mlp.down_proj.weight[:, 6:] = 0  # six of 64 neurons write anything at all
    model = open_model(hf, tokenizer=tokenizer)
    found = keeping.measure(
        model, corpus, 200, shares=(0.1,), choices=("static", "random"), config=SMALL, control=False
    )
    rows = found.keeping_errors.groupby("choice")["error"].mean()
    assert rows["static"] == pytest.approx(0, abs=1e-9) and rows["random"] > 0.5


def test_a_stopped_measurement_goes_on_where_it_was(
    found: Any, tiny: LanguageModel, corpus: Corpus, tmp_path: Path
) -> None:
    run = runs.create("keep", {"n": 400}, kind="test", root_folder=tmp_path)
    notes: list[str] = []

    def stop(done: float, total: float, note: str = "") -> None:
        notes.append(note)
        if len(notes) == 40:
            raise Cancelled

    with pytest.raises(Cancelled):
        keeping.measure(tiny, corpus, 400, shares=SHARES, one_layer=(0.1,), config=SMALL, run=run, progress=stop)
    assert len(run.table("keeping")) >= 1
    before = len(notes)
    again = keeping.measure(tiny, corpus, 400, shares=SHARES, one_layer=(0.1,), config=SMALL, run=run, progress=stop)
    assert "none, 100%" not in notes[before:], "what was measured is not measured again"
    for name, frame in found.items():
        assert_frame_equal(again[name], frame)
        assert_frame_equal(run.table(name), frame)


def test_bad_requests_are_said_in_one_sentence(tiny: LanguageModel, corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="'best' is no way to choose neurons"):
        keeping.measure(tiny, corpus, 100, choices=("best",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"share=1\.2"):
        keeping.measure(tiny, corpus, 100, shares=(1.2,))
    with pytest.raises(ValueError, match="has one document"):
        keeping.measure(tiny, corpus.select(corpus.documents.index == 0), 100)
    with pytest.raises(ValueError, match="no dense feed-forward"):
        keeping.measure(open_model(tiny_hf("olmoe", num_experts=4)), corpus, 100)
