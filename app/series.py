"""Series of small mixtures of experts (`app.series_models`), trained and measured alike."""

from pathlib import Path
from typing import Any

from pandas import DataFrame

from app.experiments import over_seeds
from app.series_models import SeriesRun, about_training, variants
from data.progress import Progress, silent, within
from data.runs import Run
from data.tables import Tables

MEASURED = ["layer", "measure", "value", "low", "high", "chance", "n_tokens"]


def work(run: Run, progress: Progress) -> None:
    """The series into the run; models stay in its folder `models`, and a stopped run goes on at its last snapshot."""
    asked = SeriesRun.model_validate(run.asked)
    from app import topk

    measured = topk.measure if asked.vary == "topk" else measure
    run.save_tables(measured(asked, run.path / "models", progress=progress))


def measure(config: SeriesRun, folder: Path, *, corpus: Any = None, progress: Progress = silent) -> Tables:
    """Train every model of the series from every seed, and measure each on documents it never read.

    Tables
        series        variant, seed, layer, measure, value, low, high, chance, n_tokens.  Measures: `information` (nats
                      between expert and word class; chance: the type null), `beyond_type` (their difference) and its
                      `z_type`; `purest_PUNCT`, `purest_VERB` (share of the purest expert; chance: base rate);
                      `load_entropy` and `busiest_share` (chance: a uniform router); constancy (`constant_fvu`,
                      `affine_fvu`, `mean_cost`) and redundancy (`output_cosine`, `neuron_cosine`) of the experts as in
                      `probes.constancy` (chance: random weights; of `mean_cost`: experts left out; the cosine of
                      neurons has no n_tokens, its interval leaves experts out)
        series_models variant, seed, n_experts, k, d_mlp, shared, balancing, parameters, active (parameters that a token
                      uses), combinations (sets of k experts), loss, unigram, kneser_ney, dropped, tokens
    """
    import pandas as pd

    from data import open_corpus
    from toymodels import language

    text = open_corpus(config.model.corpus) if corpus is None else corpus
    trainings = over_seeds(variants(config), config.seeds)
    measured, models = [], []
    for number, (name, settings) in enumerate(trainings):
        step = within(progress, number, len(trainings))
        place = folder / f"seed-{settings.seed}" / name.replace(" ", "-")
        last = language.train(settings, place, corpus=text, progress=within(step, 0, 2)).iloc[-1]
        unseen = language.held_out_documents(text, settings.seed)
        found = experts_of(place / last["folder"], unseen, config, within(step, 1, 2))
        measured.append(found.assign(variant=name, seed=settings.seed))
        models.append(about_training(name, settings, place / last["folder"], last))
    return Tables(series=pd.concat(measured, ignore_index=True), series_models=DataFrame(models))


def experts_of(folder: Path, corpus: Any, config: SeriesRun, progress: Progress) -> DataFrame:
    """One trained model's rows of `series`, without `variant` and `seed`."""
    import pandas as pd

    from probes import constancy, open_model
    from probes.stream import StreamConfig

    model, read = open_model(folder), StreamConfig(window=config.model.window)
    routed = _routing(model, corpus, config.n_tokens, read, within(progress, 0, 2))
    fitted = constancy.measure(model, corpus, config.expert_tokens, config=read, progress=within(progress, 1, 2))
    return pd.concat([*routed, fitted[MEASURED]], ignore_index=True)


def _routing(model: Any, corpus: Any, n_tokens: int, read: Any, progress: Progress) -> list[DataFrame]:
    from probes import routing
    from probes.purity import purest

    found = routing.measure(model, corpus, n_tokens, controls=(), config=read, progress=progress)
    loads = found.routing[found.routing["measure"].isin(["load_entropy", "busiest_share"])]
    pure = purest(found.by_class, model.n_experts)
    pure = pure[(pure["labels"] == "word_class") & pure["label"].isin(["PUNCT", "VERB"])]
    pure = pure.assign(measure="purest_" + pure["label"]).rename(
        columns={"share": "value", "base": "chance", "n": "n_tokens"}
    )
    return [*_associations(found.specialization), pure[MEASURED], loads[MEASURED]]


def _associations(found: DataFrame) -> list[DataFrame]:
    words = found[found["labels"] == "word_class"]
    null, sd = words["null_type"], words["sd_type"]
    about = words[["layer", "n_tokens"]]
    beyond = about.assign(measure="beyond_type", value=words["mi"] - null, chance=0.0)
    return [
        about.assign(measure="information", value=words["mi"], low=words["low"], high=words["high"], chance=null),
        beyond.assign(low=words["low"] - null - 1.96 * sd, high=words["high"] - null + 1.96 * sd),
        about.assign(measure="z_type", value=words["z_type"], chance=0.0),
    ]
