from pathlib import Path

import numpy as np
import pytest

from app import series
from app.series import SeriesRun, measure, shape, variants
from data.corpus import Corpus, Document
from toymodels.language import LanguageConfig

LITTLE = LanguageConfig.model_validate(
    series.BASE.model_dump()
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
