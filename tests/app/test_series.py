from pathlib import Path

import numpy as np
import pytest

from app.series import measure
from app.series_models import BASE, SeriesRun, shape, variants
from data.corpus import Corpus, Document
from toymodels.language_config import LanguageConfig

LITTLE = LanguageConfig.model_validate(
    BASE.model_dump()
    | {"d_model": 16, "d_mlp": 16, "n_experts": 4, "n_layers": 2, "n_heads": 2, "vocab_size": 320, "window": 16}
    | {"batch_size": 4, "steps": 4, "snapshots": 1}
)
WORDS = ["the", "old", "river", "bends", "and", ",", "slowly", ".", "we", "see", "green", "reeds", "!"]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = np.random.default_rng(0)
    return Corpus.of("reeds", [Document(f"d{i}", " ".join(rng.choice(WORDS, 80)), "x", {}) for i in range(30)])


@pytest.mark.parametrize("vary", ["granularity", "experts"])
def test_a_series_keeps_the_parameters_a_token_uses(vary: str, corpus: Corpus, tmp_path: Path) -> None:
    from toymodels.language_models import build, save, train_tokenizer

    tokenizer = train_tokenizer([d.text for d in corpus], 320, tmp_path / "t")
    found = {}
    for name, config in variants(SeriesRun(vary=vary, model=LITTLE)).items():
        save(build(config, tokenizer), tokenizer, tmp_path / name)
        found[name] = shape(config, tmp_path / name)
        # routers differ in size, and the shared expert's gate; nothing else may
        spare = config.n_layers * config.d_model * (config.n_experts + (config.family == "qwen2_moe"))
        qkv = 0 if config.family == "olmoe" else config.n_layers * config.d_model  # norms of q and k against biases
        found[name]["rest"] = found[name]["active"] - spare - qkv
    rests = {entry["rest"] for entry in found.values()}
    assert max(rests) - min(rests) <= 4 * LITTLE.n_layers * LITTLE.d_model
    assert len({entry["combinations"] for entry in found.values()}) == len(found)


def test_a_series_is_trained_measured_and_taken_up_again(corpus: Corpus, tmp_path: Path) -> None:
    config = SeriesRun(vary="granularity", model=LITTLE, seeds=1, n_tokens=500, expert_tokens=500)
    tables = measure(config, tmp_path, corpus=corpus)
    assert tables.series_models["variant"].tolist() == list(variants(config))
    assert set(tables.series["measure"]) == {
        *("information", "beyond_type", "z_type", "purest_PUNCT", "purest_VERB", "load_entropy", "busiest_share"),
        *("constant_fvu", "affine_fvu", "mean_cost", "output_cosine", "neuron_cosine"),
    }
    few = tables.series[~tables.series["measure"].isin(["information", "z_type"])]
    assert few["chance"].notna().all()
    pure = tables.series.query("measure == 'purest_PUNCT'")
    assert (pure["value"] >= pure["chance"]).all() and pure["low"].le(pure["value"]).all()
    again = measure(config, tmp_path, corpus=corpus)
    assert again.series_models.equals(tables.series_models)


def test_balancing_varies_one_family_and_a_dense_model_cannot_be_varied() -> None:
    found = variants(SeriesRun(vary="balancing", model=LITTLE))
    assert list(found) == ["none", "auxiliary", "z_loss", "bias", "capacity"]
    assert {config.family for config in found.values()} == {"deepseek_v3"}
    dense = LanguageConfig.model_validate(LITTLE.model_dump(exclude={"balancing"}) | {"family": "llama"})
    with pytest.raises(ValueError, match="no experts to vary"):
        variants(SeriesRun(model=dense))


def test_topk_sets_experts_beside_neurons_kept_after_the_fact(corpus: Corpus, tmp_path: Path) -> None:
    from app import topk

    model = LITTLE.model_copy(update={"n_experts": 8, "d_mlp": 4})
    config = SeriesRun(vary="topk", model=model, seeds=1, n_tokens=500)
    assert list(variants(config)) == ["dense", "dense, top-k", "mixture, 1 of 8", "mixture, 2 of 8", "mixture, 4 of 8"]
    tables = topk.measure(config, tmp_path, corpus=corpus)
    found = tables.series_topk.set_index(["trained", "choice", "share"])
    assert len(found) == 3 * 3 + 1 + 3 and found["n_tokens"].nunique() == 1
    dense = found["loss"] - found["change"]
    assert dense.to_numpy() == pytest.approx(dense.iloc[0]), "all are compared with one model on the same documents"
    assert (found["low"] <= found["change"]).all() and (found["change"] <= found["high"]).all()
    # at the same share the neurons in use hold as many weights; routers and norms are the rest
    for share in (0.125, 0.25, 0.5):
        experts, neurons = (
            found.loc[(f"mixture, {round(8 * share)} of 8", "experts", share), "active"],
            found.loc[("after the fact", "oracle", share), "active"],
        )
        assert 0 <= experts - neurons <= model.n_layers * model.d_model * (8 + 2)
    sizes = tables.series_models.set_index("variant")
    assert sizes.loc["dense", "active"] == sizes.loc["dense", "parameters"] and sizes.loc["dense", "n_experts"] == 1
    with pytest.raises(ValueError, match="eighths"):
        variants(SeriesRun(vary="topk", model=LITTLE))
