"""Back into the model: what the loss says of students, beside the teacher itself, mean and zero ablation.

All edits leave the first positions of a window as they are.  Losses are of the same held-out documents, so changes are
paired; recovered = (loss_ablated - loss_student) / (loss_ablated - loss).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from data.corpus import Corpus
from data.progress import Progress, silent, within
from probes.activations import held_out
from probes.firing import interval
from probes.keeping import cut, document_losses
from probes.models import LanguageModel
from probes.secret.fitting import Fit, replacing
from probes.secret.teacher import LayerTeacher
from probes.stream import N_BLOCKS, StreamConfig

REPLACEMENTS = ("teacher", "student", "mean", "zero")


def measure_losses(
    model: LanguageModel,
    corpus: Corpus,
    fits: Iterable[Fit],
    *,
    read: StreamConfig,
    n_tokens: int = 5_000,
    tokens_per_document: int = 255,
    alone: bool = True,
    together: bool = True,
    progress: Progress = silent,
) -> DataFrame:
    """The model's loss with each layer's student in its place (`alone`), and with all at once (`together`).

    `read` is the text the students were fitted on: its held-out documents are measured on.  The teacher put back in
    float32 shows what replacing alone does.  Means are those of the fits' training outputs.

    Columns: layers, replaced_by (`nothing`, `teacher`, `student`, `mean`, `zero`), loss (nats a token), change, low,
    high (95%, documents resampled in pairs), recovered_mean, recovered_mean_low, recovered_mean_high, recovered_zero,
    ..._low, ..._high (of the student), stored, stored_teacher, n_tokens, n_documents.
    """
    found = {one.config.layer: one for one in fits}
    measured = held_out_documents(corpus, read.seed)
    config = read.model_copy(
        update={"n_tokens": n_tokens, "tokens_per_document": tokens_per_document, "batch_tokens": 1_024}
    )
    every = tuple(sorted(found))
    sets = [(layer,) for layer in every if alone] + ([every] if together and (len(every) > 1 or not alone) else [])
    jobs, done = 1 + len(sets) * len(REPLACEMENTS), 0
    text = cut(model, measured, config)
    plain = document_losses(model, text, {}, within(progress, 0, jobs))
    rows: list[dict[str, Any]] = []
    for layers in sets:
        losses = {}
        for name in REPLACEMENTS:
            done += 1
            edits = replacing({layer: _answer(model, found[layer], name) for layer in layers})
            losses[name] = document_losses(model, text, edits, within(progress, done, jobs))
        about = {
            "layers": ", ".join(map(str, layers)),
            "stored": sum(found[layer].active_parameters.stored for layer in layers),
            "stored_teacher": sum(p.numel() for layer in layers for p in model.feed_forward_parameters(layer)),
        }
        rows += [about | row for row in _rows(plain, losses)]
    return DataFrame(rows)


def held_out_documents(corpus: Corpus, seed: int) -> Corpus:
    """The documents that no student was fitted on."""
    order = np.array(corpus.order(seed))
    chosen = order[held_out(np.arange(len(order)) % N_BLOCKS)]
    keep = corpus.documents["document"].notna() & corpus.documents.index.isin(chosen.tolist())
    return corpus.select(keep)


def _answer(model: LanguageModel, found: Fit, name: str) -> Callable[[Tensor], Tensor]:
    if name == "teacher":
        return LayerTeacher(model, found.config.layer)
    if name == "student":
        return found.student
    constant: Float[Tensor, " d_model"] = found.mean_output if name == "mean" else torch.zeros_like(found.mean_output)
    return lambda x: constant.expand(len(x), -1)


def _rows(plain: DataFrame, losses: Mapping[str, DataFrame]) -> list[dict[str, Any]]:
    plain = plain.set_index("document")
    n = plain["n_tokens"].to_numpy()
    base = plain["loss"].to_numpy()
    sums = {name: one.set_index("document")["loss"].reindex(plain.index).to_numpy() for name, one in losses.items()}
    rows = []
    for name, total in ({"nothing": base} | sums).items():
        low, high = interval(total - base, n)
        row = {"replaced_by": name, "loss": total.sum() / n.sum(), "change": (total - base).sum() / n.sum()}
        row |= {"low": low, "high": high}
        for how in ("mean", "zero") if name == "student" else ():
            saved, harm = sums[how] - total, sums[how] - base
            row[f"recovered_{how}"] = saved.sum() / harm.sum()
            row[f"recovered_{how}_low"], row[f"recovered_{how}_high"] = interval(saved, harm)
        rows.append(row | {"n_tokens": int(n.sum()), "n_documents": len(n)})
    return rows
