import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data import Cancelled
from data.corpus import Corpus, Document
from tests.toymodels.conftest import WORDS
from toymodels import language
from toymodels.language import batch, kept, rate, snapshots, strongest, train
from toymodels.language_config import LanguageConfig
from toymodels.language_losses import unigram_loss
from toymodels.language_models import build, down_projections, train_tokenizer

SMALL = LanguageConfig(
    d_model=16, d_mlp=32, n_heads=2, vocab_size=320, window=16, batch_size=4, steps=6, snapshots=3, n_experts=4
)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(SMALL, folder, corpus=corpus)
    return folder


def test_snapshots_are_log_spaced_and_open_in_transformers(trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    index = snapshots(trained)
    assert index["step"].tolist() == list(SMALL.marks) == [0, 1, 2, 6]
    assert index["tokens"].tolist() == [0, 64, 128, 384]
    place = trained / index["folder"].iloc[-1]
    model = AutoModelForCausalLM.from_pretrained(place).eval()
    tokenizer = AutoTokenizer.from_pretrained(place)
    assert tokenizer.decode(tokenizer("seven grey herons")["input_ids"]) == "seven grey herons"
    assert model.config.hidden_act == "relu" and model.num_parameters() > 0
    saved = load_file(trained / "checkpoint.safetensors")["weight/model.embed_tokens.weight"]
    assert torch.equal(model.model.embed_tokens.weight, saved)


def test_held_out_loss_is_that_of_transformers_and_begins_at_chance(trained: Path, corpus: Corpus) -> None:
    from transformers import AutoModelForCausalLM

    index = snapshots(trained)
    assert index["loss"].iloc[0] == pytest.approx(index["uniform"].iloc[0], rel=0.02)
    _, _, held = language._text(SMALL, trained, corpus)
    model = AutoModelForCausalLM.from_pretrained(trained / "step-000006").eval()
    with torch.no_grad():
        losses = [float(model(input_ids=row[None], labels=row[None]).loss) for row in held]
    assert index["loss"].iloc[-1] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_stopped_training_ends_at_the_same_weights(trained: Path, corpus: Corpus, tmp_path: Path) -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        if done == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(SMALL, tmp_path, corpus=corpus, progress=stop)
    assert snapshots(tmp_path)["step"].tolist() == [0, 1, 2]
    train(SMALL, tmp_path, corpus=corpus)
    first, second = (load_file(folder / "checkpoint.safetensors") for folder in (trained, tmp_path))
    assert set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)
    assert snapshots(tmp_path).equals(snapshots(trained))


def test_a_finished_training_is_not_trained_again(trained: Path, corpus: Corpus) -> None:
    def refuse(done: float, total: float, note: str = "") -> None:
        raise AssertionError("nothing is left to do")

    assert len(train(SMALL, trained, corpus=corpus, progress=refuse)) == 4


def test_text_is_learned_beyond_its_frequencies(tmp_path: Path) -> None:
    """Words in a fixed order: each token follows from the one before."""
    text = " ".join(WORDS * 8)
    corpus = Corpus.of("cycle", [Document(f"d{i}", text, "x", {}) for i in range(10)])
    index = train(
        SMALL.model_copy(update={"steps": 120, "learning_rate": 1e-2, "snapshots": 1}), tmp_path, corpus=corpus
    )
    assert index["loss"].iloc[-1] < 0.5 * index["unigram"].iloc[-1] < index["uniform"].iloc[-1]


@pytest.mark.parametrize("family", ["gpt_neox", "olmoe", "qwen2_moe", "deepseek_v3"])
def test_every_family_trains_and_every_part_of_it_learns(family: str, corpus: Corpus, tmp_path: Path) -> None:
    config = LanguageConfig.model_validate(SMALL.model_dump() | {"family": family, "steps": 4, "snapshots": 1})
    index = train(config, tmp_path, corpus=corpus)
    assert np.isfinite(index["loss"]).all() and index["loss"].iloc[-1] < index["loss"].iloc[0]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in index["folder"].iloc[[0, -1]])
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))


def test_strongest_against_sorting() -> None:
    z = torch.randn(5, 3, 40, generator=torch.Generator().manual_seed(0))
    top = strongest(z, 0.1)
    assert ((top != 0).sum(-1) == 4).all() and torch.equal(top[top != 0], z[top != 0])
    cut = z.abs().sort(descending=True).values[..., 3:4]
    assert torch.equal(top != 0, z.abs() >= cut)
    assert torch.equal(strongest(z, 1.0), z) and ((strongest(z, 0.001) != 0).sum(-1) == 1).all()


def test_neurons_are_kept_from_the_step_that_was_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"keep": 0.25, "keep_from": 2, "activation": "silu"})
    index = train(config, tmp_path, corpus=corpus)
    assert index["keep"].tolist() == [1.0, 1.0, 0.25, 0.25]
    assert (index["loss"] == index["loss_all"]).tolist() == [True, True, False, False]
    model = build(config, train_tokenizer([], 320, tmp_path / "tokenizer"))
    seen: list[int] = []
    for step, most in ((1, 32), (2, 8)):
        with kept(model, config, step):
            hooks = [
                m.register_forward_pre_hook(lambda m, x: seen.append(int((x[0] != 0).sum(-1).max())))
                for m in down_projections(model)
            ]
            model(input_ids=torch.arange(12)[None])
        assert len(hooks) == 2 and max(seen) == most
        for hook in hooks:
            hook.remove()
        seen.clear()


def test_a_step_sees_the_same_windows_whenever_it_is_asked() -> None:
    text = torch.arange(1_000)
    rows = batch(text, SMALL, 5)
    assert rows.shape == (4, 16) and torch.equal(rows, batch(text, SMALL, 5))
    assert (rows.diff(dim=1) == 1).all()
    assert not torch.equal(rows, batch(text, SMALL, 6))
    assert not torch.equal(rows, batch(text, SMALL.model_copy(update={"seed": 1}), 5))


def test_step_length_rises_then_falls_to_a_tenth() -> None:
    rates = [rate(s, 100) for s in range(1, 101)]
    assert rates[4] == 1 and rates[0] == 0.2 and rates[-1] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_frequencies_of_a_known_text() -> None:
    """Counts plus one: 4 and 2 of 6; half of the held-out tokens are each."""
    held = torch.tensor([[0, 0, 1]])
    assert unigram_loss(torch.tensor([0, 0, 0, 1]), held, 2) == pytest.approx(-(math.log(4 / 6) + math.log(2 / 6)) / 2)


def test_refusals_are_sentences(trained: Path, corpus: Corpus, tmp_path: Path) -> None:
    for change, words in (
        ({"n_heads": 3}, "even width of a head"),
        ({"family": "olmoe", "k": 5}, "exceed n_experts=4"),
        ({"keep": 1.5}, "keep is a share"),
        ({"family": "olmoe", "keep": 0.5}, "keep is a share of 1, for dense families"),
        ({"vocab_size": 100}, "choose >= 300"),
    ):
        with pytest.raises(ValueError, match=words):
            LanguageConfig.model_validate(SMALL.model_dump() | change)
    with pytest.raises(ValueError, match=r"other settings \(seed\)"):
        train(SMALL.model_copy(update={"seed": 1}), trained, corpus=corpus)
    with pytest.raises(ValueError, match="no training with snapshots"):
        snapshots(tmp_path)
    with pytest.raises(ValueError, match="single document"):
        train(SMALL, tmp_path / "a", corpus=Corpus.of("one", [corpus[0]]))
    with pytest.raises(ValueError, match="too short for windows of 512"):
        train(SMALL.model_copy(update={"window": 512}), tmp_path / "b", corpus=corpus)
