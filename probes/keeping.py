"""Top-k after the fact: what a trained model loses when only a share of each block's neurons is kept.

    oracle      the neurons with the largest |z| of each token: the best that anything could know beforehand
    threshold   those with |z| at or above one number a layer, chosen on other documents to keep the share on average
    static      the same neurons for every token: those whose E[z^2] ||w||^2 is largest on other documents
    random      the same neurons for every token, drawn at random: the control of all three

z is the input of the down-projection, w the neuron's column of it; what is not kept is 0.  Language-model loss is
measured with the edit in all blocks or in one; the output error of a block is measured on its own, unedited inputs:
error = sum ||y_kept - y||^2 / sum ||y||^2, y without its bias, ordinary tokens.
Source: Li et al. 2022 (2210.06313), section 4; TEAL for `threshold`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from pandas import DataFrame

from data.corpus import Corpus
from data.progress import Progress, silent
from data.runs import Run
from data.tables import Tables
from probes import stream
from probes.choosing import CHOICES, Calibration, Choice, Edit, OutputErrors, dense_layers, keep_top, n_kept
from probes.controls import random_init
from probes.firing import interval, resamples
from probes.models import LanguageModel
from probes.stream import StreamConfig, TokenBatch

__all__ = ["ALL", "CHOICES", "SHARES", "Choice", "cut", "document_losses", "halves", "keep_top", "measure", "point"]

SHARES = (0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1)
ALL = -1
"""The `layer` of rows where every block is edited."""
COSTS_ONE_PERCENT = float(np.log(1.01))


def measure(
    model: LanguageModel,
    corpus: Corpus,
    n_tokens: int = 4_000,
    *,
    shares: Sequence[float] = SHARES,
    choices: Sequence[Choice] = CHOICES,
    one_layer: Sequence[float] = (),
    control: bool = True,
    config: StreamConfig | None = None,
    run: Run | None = None,
    progress: Progress = silent,
) -> Tables:
    """Loss, perplexity ratio and output error when only a share of the neurons is kept.

    Half of the documents are read for the measurement, the other half to choose neurons and thresholds.  `one_layer`:
    shares at which each block is also edited alone (by oracle).  `control`: output errors of random weights as well.

    Tables
        keeping            choice, layer (-1: all), share, loss, change (nats), low, high, ppl_ratio, ratio_low,
                           ratio_high, n_tokens, n_documents; intervals: 95%, documents resampled in pairs
        keeping_points     choice, share at which perplexity is 1% higher, low, high, n_tokens, n_documents
        keeping_errors     condition, layer, choice, share, error, low, high, n_tokens
        keeping_documents  choice, layer, share, document, loss (sum), n_tokens: what the first two are made of

    With `run`, tables are saved after every setting, and a stopped measurement goes on at the next.
    Raises ValueError for an unknown choice, a share outside (0, 1], or a corpus of one document.
    """
    config = (config or StreamConfig()).model_copy(update={"n_tokens": n_tokens, "batch_tokens": 1_024})
    _check(model, corpus, shares, choices)
    evaluated, other = halves(corpus, config.seed)
    held = _load(run)
    settings: list[tuple[Any, int, float]] = [("none", ALL, 1.0)]
    settings += [(c, ALL, s) for c in choices for s in sorted(shares, reverse=True)]
    settings += [("oracle", layer, s) for s in one_layer for layer in dense_layers(model)]
    jobs = len(settings) + 2 + control
    known = Calibration(model, config.seed)
    told = _Steps(progress, jobs)
    text = cut(model, evaluated, config)
    stream.run(model, other, {"energy": known, "sizes": known.sizes}, config, progress=told.next("choosing neurons"))
    for choice, layer, share in settings:
        tell = told.next(f"{choice}, {share:.0%}" + (f", layer {layer}" if layer != ALL else ""))
        if (choice, layer, share) not in held:
            places = [] if choice == "none" else [layer] if layer != ALL else dense_layers(model)
            edits = {(at, "neurons"): known.edit(at, choice, share) for at in places}
            held[choice, layer, share] = document_losses(model, text, edits, tell)
            if run is not None:
                run.save_tables(_tables(held))
    found = _tables(held)
    found["keeping_errors"] = _errors(model, evaluated, known, config, shares, choices, control, told)
    if run is not None:
        run.save_tables(found)
    return found


def document_losses(
    model: LanguageModel,
    text: Sequence[TokenBatch],
    edits: Mapping[tuple[int, str], Edit],
    progress: Progress = silent,
) -> DataFrame:
    """Summed next-token loss (nats) of each document under the edits: columns document, loss, n_tokens."""
    sums: dict[str, tuple[float, int]] = {}
    done, whole = 0, sum(len(window) - 1 for batch in text for window in batch.windows)
    with model.edited(edits):
        for batch in text:
            losses = model.losses(batch.ids).double().cpu()
            for row, window in zip(losses, batch.windows, strict=True):
                loss, n = sums.get(window.document, (0.0, 0))
                sums[window.document] = (loss + float(row[: len(window) - 1].sum()), n + len(window) - 1)
                done += len(window) - 1
            progress(done, whole)
    rows = [(document, loss, n) for document, (loss, n) in sums.items()]
    return DataFrame(rows, columns=["document", "loss", "n_tokens"])


def cut(model: LanguageModel, corpus: Corpus, config: StreamConfig) -> list[TokenBatch]:
    """The text's batches, cut into tokens once for any number of edits: whole windows of as many documents as fit."""
    text = config.window - 1
    share = -(-max(text, -(-config.n_tokens // len(corpus))) // text) * text
    shards = corpus.shards(
        model.tokenizer,
        tokens_per_shard=config.shard_tokens,
        n_tokens=config.n_tokens,
        tokens_per_document=config.tokens_per_document or share,
        seed=config.seed,
    )
    return [batch for shard in shards for batch in stream.batches(shard, model, config)]


def point(shares: Float[np.ndarray, " n"], changes: Float[np.ndarray, " n"], cost: float = COSTS_ONE_PERCENT) -> float:
    """The share, going down from all neurons, at which the change of loss first exceeds `cost`.

    Between two measured shares it is interpolated in the change; NaN if it never exceeds the cost.
    """
    order = np.argsort(-shares)
    x, y = np.append(1.0, shares[order]), np.append(0.0, changes[order])
    over = np.flatnonzero(y > cost)
    if not len(over):
        return float("nan")
    i = over[0]
    return float(x[i - 1] + (cost - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1]))


def halves(corpus: Corpus, seed: int) -> tuple[Corpus, Corpus]:
    """Every other document in the order of `seed`, and those between; ValueError for fewer than two documents."""
    if len(corpus) < 2:
        raise ValueError(f"'{corpus.name}' has one document; give at least two, as neurons are chosen on others")
    first = set(corpus.order(seed)[::2])
    mine = corpus.documents.index.isin(list(first))
    keep = corpus.documents["document"].notna()
    return corpus.select(keep & mine), corpus.select(keep & ~mine)


class _Steps:
    """Progress of one job after another."""

    def __init__(self, progress: Progress, jobs: int):
        self.progress, self.jobs, self.begun = progress, jobs, -1

    def next(self, name: str) -> Progress:
        self.begun += 1
        before = self.begun
        return lambda done, total, note="": self.progress(before + done / total, self.jobs, name)


def _errors(
    model: LanguageModel,
    corpus: Corpus,
    known: Calibration,
    config: StreamConfig,
    shares: Sequence[float],
    choices: Sequence[Choice],
    control: bool,
    told: _Steps,
) -> DataFrame:
    frames = []
    for condition in ("real", "random_init") if control else ("real",):
        measured = model if condition == "real" else random_init(model, config.seed)
        # chosen on the trained model's activations: for random weights only the oracle means something
        named: Iterable[Choice] = choices if condition == "real" else [c for c in choices if c == "oracle"]
        edits = {(at, c, s): known.edit(at, c, s) for c in named for s in shares for at in dense_layers(model)}
        errors = OutputErrors(measured, edits)
        stream.run(measured, corpus, {"errors": errors}, config, progress=told.next(f"output errors, {condition}"))
        frames.append(errors.tables().keeping_errors.assign(condition=condition))
    return pd.concat(frames, ignore_index=True)


def _tables(held: Mapping[tuple[Any, int, float], DataFrame]) -> Tables:
    clean = held["none", ALL, 1.0].set_index("document")
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[tuple[float, np.ndarray]]] = {}
    n = clean["n_tokens"].to_numpy()
    about = {"n_tokens": int(n.sum()), "n_documents": len(n)}
    for (choice, layer, share), frame in held.items():
        lost = frame.set_index("document")["loss"].reindex(clean.index).to_numpy()
        difference = lost - clean["loss"].to_numpy()
        change, (low, high) = float(difference.sum() / n.sum()), interval(difference, n)
        row = {"choice": choice, "layer": layer, "share": share, "loss": float(lost.sum() / n.sum())}
        row |= {"change": change, "low": low, "high": high}
        row |= dict(zip(("ppl_ratio", "ratio_low", "ratio_high"), np.exp([change, low, high]).tolist(), strict=True))
        rows.append(row | about)
        if layer == ALL and choice != "none":
            curves.setdefault(choice, []).append((share, difference))
    documents = [f.assign(choice=c, layer=layer, share=s) for (c, layer, s), f in held.items()]
    found = Tables(keeping=DataFrame(rows), keeping_documents=pd.concat(documents, ignore_index=True))
    if curves:
        found["keeping_points"] = DataFrame([{"choice": c, **_point(curve, n), **about} for c, curve in curves.items()])
    return found


def _point(curve: Sequence[tuple[float, np.ndarray]], n: Int[np.ndarray, " documents"]) -> dict[str, float]:
    shares, differences = np.array([s for s, _ in curve]), np.stack([d for _, d in curve])
    value = point(shares, differences.sum(axis=1) / n.sum())
    low = high = float("nan")
    if len(n) > 1:
        drawn = resamples(len(n))
        points = [point(shares, row) for row in (drawn @ differences.T) / (drawn @ n)[:, None]]
        # a curve that never costs 1% stays below the smallest share measured
        low, high = np.percentile(np.nan_to_num(points, nan=float(shares.min())), [2.5, 97.5]).tolist()
    return {"share": value, "low": low, "high": high}


def _load(run: Run | None) -> dict[tuple[Any, int, float], DataFrame]:
    if run is None or "keeping_documents" not in run.table_names():
        return {}
    groups = run.table("keeping_documents").groupby(["choice", "layer", "share"], sort=False)
    return {key: frame[["document", "loss", "n_tokens"]] for key, frame in groups}  # type: ignore[misc]


def _check(model: LanguageModel, corpus: Corpus, shares: Sequence[float], choices: Sequence[str]) -> None:
    for choice in choices:
        if choice not in CHOICES:
            raise ValueError(f"'{choice}' is no way to choose neurons; there are {', '.join(CHOICES)}")
    for share in shares:
        n_kept(share, model.d_mlp)
    if not dense_layers(model):
        raise ValueError(f"{model.title} has no dense feed-forward block; its neurons are its experts'")
