from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from data.corpus import Corpus
from probes import LanguageModel, coherence, open_model, saes, stream
from probes.activations import Activations, cached, held_out
from probes.dictionaries import of_sae, open_dictionary
from probes.saes import SaeConfig, SaeError, load, losses, report, train, unexplained
from probes.stream import StreamConfig
from tests.probes.tiny import tiny_hf

READ = StreamConfig(n_tokens=600, tokens_per_document=60, window=32, batch_tokens=128)
SMALL = SaeConfig(d_sae=48, k=4, steps=60, batch_size=64, learning_rate=5e-3, n_tokens=600, layer=1)


def planted(n: int = 4_000, width: int = 8, seed: int = 0) -> tuple[Activations, torch.Tensor]:
    """Rows with one of 12 directions each, of length 1 to 2, around a mean far from 0."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(12, width, generator=generator), dim=1)
    which = torch.randint(12, (n,), generator=generator)
    length = 1 + torch.rand(n, 1, generator=generator)
    rows = directions[which] * length + 5
    return Activations(rows.numpy(), np.arange(n) % 64), directions


@pytest.fixture(scope="module")
def found() -> tuple[saes.Sae, Activations, torch.Tensor]:
    rows, directions = planted()
    config = SaeConfig(d_sae=16, k=1, steps=1_500, batch_size=256, learning_rate=1e-2)
    return train(rows, config)[0], rows, directions


def test_cached_rows_are_the_sites_of_ordinary_tokens(tiny: LanguageModel, corpus: Corpus) -> None:
    held: list[torch.Tensor] = []

    class Watch:
        sites = ("neurons",)

        def update(self, seen: stream.Observation) -> None:
            held.append(seen.sites["neurons"][seen.group == 0])

        def state(self) -> dict[str, np.ndarray]:
            return {}

    stream.run(tiny, corpus, {"w": Watch()}, READ, layers=[2])  # type: ignore[dict-item]
    with cached(tiny, corpus, "neurons", 2, READ) as rows:
        path = Path(rows.rows.base.filename if rows.rows.base is not None else rows.rows.filename)  # type: ignore[union-attr,attr-defined]
        assert path.exists() and isinstance(rows.rows, np.memmap)
        np.testing.assert_array_equal(rows.rows, torch.cat(held).numpy())
        assert 0 < len(rows.rows) < 600  # first positions are left out
        assert rows.held_out.any() and not rows.held_out.all()
    assert not path.exists()


def test_planted_directions_are_found(found: tuple[saes.Sae, Activations, torch.Tensor]) -> None:
    sae, rows, directions = found
    numbers, latents = report(sae, rows)
    best = (directions @ torch.nn.functional.normalize(sae.decoder, dim=0)).max(dim=1).values
    assert (best > 0.95).float().mean() >= 10 / 12
    assert numbers["l0"] <= 1 and numbers["fvu"] < 0.1
    assert numbers["dead_latents"] == (latents["frequency"] == 0).sum()
    assert latents["frequency"].sum() == pytest.approx(numbers["l0"])


def test_fractions_of_variance_against_formulas(found: tuple[saes.Sae, Activations, torch.Tensor]) -> None:
    sae, rows, _ = found
    x = torch.from_numpy(rows.rows[rows.held_out]).double()
    missed = (sae.reconstruct(x.float()).double() - x).square().sum(1)
    around = (x - x.mean(0)).square().sum(1)
    numbers, n = unexplained(rows, sae.reconstruct)
    assert n == len(x)
    assert numbers["fvu"] == pytest.approx(float(missed.sum() / around.sum()), rel=1e-4)
    assert numbers["fvu_token"] == pytest.approx(float((missed / around).mean()), rel=1e-4)
    assert numbers["fvu_low"] < numbers["fvu"] < numbers["fvu_high"]


def test_the_mean_explains_nothing_and_the_identity_all(found: tuple[saes.Sae, Activations, torch.Tensor]) -> None:
    _, rows, _ = found
    mean = torch.from_numpy(rows.rows[rows.held_out]).mean(0)
    assert unexplained(rows, lambda x: mean.expand_as(x))[0]["fvu"] == pytest.approx(1, abs=1e-4)
    assert unexplained(rows, lambda x: x)[0]["fvu"] == 0


def test_principal_components_are_those_of_scikit_learn(found: tuple[saes.Sae, Activations, torch.Tensor]) -> None:
    _, rows, _ = found
    mean, directions = saes.principal_components(rows, 3)
    known = PCA(3).fit(rows.rows[~rows.held_out])
    np.testing.assert_allclose(mean, known.mean_, rtol=1e-5)
    np.testing.assert_allclose(np.abs(known.components_ @ directions.numpy()), np.eye(3), atol=1e-3)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu", "standard"])
def test_every_architecture_saves_and_loads_the_same(architecture: str, tmp_path: Path) -> None:
    rows, _ = planted(600)
    config = SMALL.model_copy(update={"architecture": architecture, "d_sae": 16, "k": 2, "steps": 20})
    sae, course = train(rows, config)
    assert course["step"].iloc[-1] == 20 and np.isfinite(course.to_numpy()).all()
    again = load(sae.save(tmp_path / "kept"))
    x = torch.from_numpy(rows.rows[:50])
    torch.testing.assert_close(again.reconstruct(x), sae.reconstruct(x))
    assert again.decoder.shape == (8, 16) and again.name == "kept"


def test_the_same_seed_gives_the_same_and_leaves_the_global_one(
    found: tuple[saes.Sae, Activations, torch.Tensor],
) -> None:
    rows = found[1]
    torch.manual_seed(7)
    first = train(rows, SMALL)[0]
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(first.W_dec, train(rows, SMALL)[0].W_dec)
    assert not torch.equal(first.W_dec, train(rows, SMALL.model_copy(update={"seed": 1}))[0].W_dec)


def test_loss_recovered_of_the_identity_is_one_and_of_the_mean_zero(tokenizer: object, corpus: Corpus) -> None:
    # Large weights, so that the logits lean on the layer and there is something to lose.
    model = open_model(tiny_hf(seed=2, initializer_range=0.4), tokenizer=tokenizer)
    mean = torch.full((model.d_model,), 0.3)
    rebuilt = {"whole": lambda x: x, "none": lambda x: mean.expand_as(x), "half": torch.zeros_like}
    whole, none, half = losses(model, corpus, "block_output", 1, READ, rebuilt, mean).values()
    assert losses(model, corpus, "block_output", 1, READ, {"none": rebuilt["none"]}, mean)["none"] == none
    for found in (whole, none, half):
        assert found["loss"] == pytest.approx(whole["loss"]) and found["loss_mean"] != pytest.approx(found["loss"])
    assert whole["loss_sae"] == pytest.approx(whole["loss"], rel=1e-6)
    assert none["loss_sae"] == pytest.approx(none["loss_mean"], rel=1e-6)
    assert half["loss_sae"] == pytest.approx(half["loss_zero"], rel=1e-6)
    for how, other in (("mean", none), ("zero", half)):
        assert whole[f"loss_{how}"] - whole["loss"] > saes.HARM
        assert whole[f"recovered_{how}"] == pytest.approx(1, abs=1e-3)
        assert other[f"recovered_{how}"] == pytest.approx(0, abs=1e-3)


def test_where_nothing_is_lost_nothing_can_be_recovered(tiny: LanguageModel, corpus: Corpus) -> None:
    found = losses(tiny, corpus, "ffn_output", 0, READ, {"": torch.zeros_like}, torch.zeros(tiny.d_model))[""]
    assert abs(found["loss_zero"] - found["loss"]) < saes.HARM and np.isnan(found["recovered_zero"])


def test_losses_are_those_of_the_held_out_documents(tiny: LanguageModel, corpus: Corpus) -> None:
    """Plain loss, window by window without padding."""
    found = losses(tiny, corpus, "ffn_output", 0, READ, {"": torch.zeros_like}, torch.zeros(tiny.d_model))[""]
    nats, n = 0.0, 0
    for document in corpus.tokenize(tiny.tokenizer, n_tokens=600, tokens_per_document=60):
        if held_out(np.array([document.document_index]))[0]:
            for window in document.windows(32, begin_token_id=tiny.document_token):
                ids = torch.tensor(np.asarray(window.token_ids, dtype=np.int64))[None]
                nats, n = nats + float(tiny.losses(ids).sum()), n + len(window) - 1
    assert found["n_loss_tokens"] == n and found["loss"] == pytest.approx(nats / n, rel=1e-5)
    assert found["loss_sae"] == pytest.approx(found["loss_zero"], rel=1e-6)


def test_measure_sets_the_autoencoder_beside_its_controls(tiny: LanguageModel, corpus: Corpus) -> None:
    tables, made = saes.measure(tiny, corpus, SMALL.model_copy(update={"seed": 3}))
    table = tables.sae.set_index("condition")
    assert list(table.index) == ["real", "pca", "random_init"] and set(made) == {"real", "random_init"}
    assert table["l0"]["pca"] == table["l0"]["real"] == 4  # top-k: exactly k latents
    assert (table["n_tokens"] > 0).all() and (table["fvu"] > 0).all()
    assert table["loss"]["real"] == table["loss"]["pca"] != table["loss"]["random_init"]
    assert set(tables.sae_latents["condition"]) == {"real", "random_init"}
    named = of_sae(made["real"])
    assert coherence.measure(named.matrix).mu <= 1 and named.matrix.shape == (32, 48)


def test_refusals_are_sentences(tiny: LanguageModel, corpus: Corpus, tmp_path: Path) -> None:
    for change, words in (
        ({"site": "attention_pattern"}, "not one vector"),
        ({"layer": 9}, "layer 9 is not in 0..2"),
        ({"k": 49}, "k=49 active latents exceed d_sae=48"),
        ({"batch_size": 5_000}, "fewer than one batch"),
    ):
        with pytest.raises(ValueError, match=words):
            saes.measure(tiny, corpus, SMALL.model_copy(update=change), control=False)
    rows, _ = planted(200, width=5)
    with pytest.raises(SaeError, match="reads vectors of 8 numbers, this site has 5"):
        report(train(planted(600)[0], SMALL)[0], rows)
    with pytest.raises(SaeError, match="every token has the same"):
        train(Activations(np.ones((300, 4), dtype=np.float32), np.arange(300) % 64), SMALL)
    with pytest.raises(SaeError, match=r"no cfg.json"):
        load(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(SaeError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(SaeError, match="a release needs an id"):
        load("gpt2-small-res-jb")
    with pytest.raises(SaeError, match="not found in pretrained SAEs directory"):
        load("no-such-release", "x")
    with pytest.raises(SaeError, match="not found in release"):
        load("gpt2-small-res-jb", "no-such-id")


def test_a_release_without_a_network_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SaeError, match="neither in the local cache nor reachable"):
        load("gpt2-small-res-jb", "blocks.8.hook_resid_pre")


def published(folder: Path) -> dict[str, torch.Tensor]:
    """A JumpReLU autoencoder written by sae-lens alone, as people publish them; its weights."""
    import sae_lens

    shape = {"d_in": 32, "d_sae": 80, "apply_b_dec_to_input": True, "normalize_activations": "none"}
    made = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(**shape))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(5)
    for name, weight in made.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        weight.data.copy_(0.1 * drawn.abs() if name == "threshold" else 0.3 * drawn)
    made.save_model(folder)
    return {name: weight.detach().clone() for name, weight in made.named_parameters()}


@pytest.mark.parametrize("place", ["folder", "release"])
def test_a_published_autoencoder_is_read_and_measured(
    place: str, tiny: LanguageModel, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "somebody" / "saes" / "layer-1"
    known = published(folder)
    if place == "release":  # what the hub would send lies here
        from safetensors.torch import save_file

        save_file({"sparsity": torch.zeros(80)}, folder / "sparsity.safetensors")
        monkeypatch.setattr(
            "sae_lens.loading.pretrained_sae_loaders.hf_hub_download",
            lambda repo_id, filename, force_download: str(tmp_path / repo_id / filename),
        )
        sae = load("somebody/saes", "layer-1")
    else:
        sae = load(folder)
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(6))
    before = (x - known["b_dec"]) @ known["W_enc"] + known["b_enc"]
    latents = before.relu() * (before > known["threshold"])
    torch.testing.assert_close(sae.encode(x), latents)
    torch.testing.assert_close(sae.reconstruct(x), latents @ known["W_dec"] + known["b_dec"])
    tables, made = saes.measure(tiny, corpus, SMALL, sae=sae)
    row = tables.sae.set_index("condition").loc["real"]
    assert made["real"] is sae and row["architecture"] == "jumprelu" and (row["d_in"], row["d_sae"]) == (32, 80)
    assert "pca" in set(tables.sae["condition"]) and "sae_training" not in tables


def test_the_decoder_of_a_published_folder_is_a_dictionary(tmp_path: Path) -> None:
    known = published(tmp_path / "kept")
    written = open_dictionary(f"{tmp_path}/kept/sae_weights.safetensors#W_dec", transpose=True)
    opened = of_sae(load(tmp_path / "kept"))
    np.testing.assert_allclose(np.asarray(written.matrix), known["W_dec"].T, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(opened.matrix), known["W_dec"].T, rtol=1e-6)
    unit = torch.nn.functional.normalize(known["W_dec"].double(), dim=1)
    cosines = (unit @ unit.T).abs().fill_diagonal_(0)
    assert coherence.measure(written.matrix).mu == pytest.approx(float(cosines.max()))
