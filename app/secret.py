"""Secret mixtures of experts of a language model as one piece of work that fills a run folder."""

import shutil
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from app.measurements import Dtype, number_type, remember_inputs
from data.config import Config
from data.progress import Progress, within
from data.runs import Run

KIND = "probe.secret"
CLOSED = "closed_form"


class SecretRun(Config):
    """Settings of `probe.secret`."""

    model: str = "smollm2-135m"
    """Name, GGUF file, folder or hub name of the language model."""
    corpus: str = "sotu-modern"
    """Name or path of the text."""
    layers: tuple[NonNegativeInt, ...] | None = None
    """Layers whose feed-forward blocks are imitated; None: the middle one."""
    methods: tuple[str, ...] = ("dense", CLOSED)
    """Students; ratios are taken against `dense`."""
    conditions: tuple[str, ...] = ("real", "gaussian")
    """Conditions; gaps are taken against `real`."""
    seeds: tuple[NonNegativeInt, ...] = (0,)
    """Seeds of k-means, initial weights and drawn inputs."""
    n_experts: PositiveInt = 64
    """Experts."""
    n_active: PositiveInt = 64
    """Neurons active for a token."""
    rank: PositiveInt | None = None
    """Rank of each expert; what n_active leaves over is shared."""
    k: PositiveInt = 1
    """Experts mixed for a token in the closed form."""
    n_tokens: PositiveInt = 50_000
    """Tokens read; a fifth of the documents is held out."""
    steps: PositiveInt = 1_500
    """Adam steps of the trained students."""
    losses: bool = True
    """Put the closed form's students back into the model and measure its loss."""
    loss_tokens: PositiveInt = 5_000
    """Held-out tokens on which losses are measured."""
    embedding: bool = False
    """Measure tables and cell constants as well: how much of the layer is an embedding."""
    dtype: Dtype = "auto"
    """Number type of the model's forward pass; students and teacher are float32."""
    seed: NonNegativeInt = 0
    """Order of the documents."""


def work(run: Run, progress: Progress) -> None:
    """Measure `SecretRun` into the run."""
    measure(SecretRun.model_validate({k: v for k, v in run.settings.items() if k != "kind"}), run, progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: the closed form of one layer on 8,160 tokens, 16 experts, beside a dense layer of equal cost."""
    asked = SecretRun(
        model=config.model, corpus=config.corpus, n_experts=16, n_active=32, n_tokens=8_160, steps=300, losses=False,
        seed=config.seed,
    )  # fmt: skip
    measure(asked, run, progress)


def measure(asked: SecretRun, run: Run, progress: Progress) -> None:
    """Tables `secret*`, and the students of the closed form on real activations as `student_LAYER.safetensors`."""
    progress(0, 20, f"opening {asked.model}")
    from data import open_corpus
    from probes import open_model, secret
    from probes.secret.export import keep
    from probes.secret.fitting import Fit
    from probes.secret.losses import measure_losses
    from probes.stream import StreamConfig

    model = open_model(asked.model, dtype=number_type(asked.dtype))
    corpus = open_corpus(asked.corpus)
    remember_inputs(
        run,
        [("model", model.name, model.title, model.fingerprint), ("corpus", corpus.name, corpus.name, corpus.hash)],
    )
    layers = asked.layers or (model.n_layers // 2,)
    read = StreamConfig(n_tokens=asked.n_tokens, seed=asked.seed)
    inputs = secret.capture(model, corpus, layers, read, name="inputs", root=run.path, progress=_part(progress, 0, 8))
    settings = {name: getattr(asked, name) for name in ("n_experts", "n_active", "rank", "k", "steps")}
    students = secret.grid(layers, methods=asked.methods, conditions=asked.conditions, seeds=asked.seeds, **settings)
    kept: dict[int, Fit] = {}

    def seen(found: Fit) -> None:
        config = found.config
        if config.method == CLOSED and config.condition == "real" and config.seed == asked.seeds[0]:
            keep(run, [found])
            kept[config.layer] = found

    secret.compare(model, students=students, inputs=inputs, run=run, seen=seen, progress=_part(progress, 8, 14))
    if asked.losses and CLOSED in asked.methods:
        for config in students:  # a comparison taken up again has not shown those it had fitted
            if config.layer not in kept and config.method == CLOSED and config.condition == "real":
                seen(secret.fit(model, inputs=inputs, **config.model_dump()))
        told = _part(progress, 14, 18)
        frame = measure_losses(model, corpus, kept.values(), read=read, n_tokens=asked.loss_tokens, progress=told)
        run.save_table("secret_losses", frame)
    if asked.embedding:
        _embedding(model, inputs, layers, run, _part(progress, 18, 20))
    shutil.rmtree(run.path / "inputs")
    progress(20, 20, "done")


def _embedding(model: Any, inputs: Run, layers: tuple[int, ...], run: Run, progress: Progress) -> None:
    import pandas as pd

    from probes import secret
    from probes.secret.embedding import curves, tables_by_token
    from probes.secret.fitting import Layer

    cells, slopes, tables = [], [], []
    for number, layer in enumerate(layers):
        seen = secret.read_inputs(inputs, layer)
        subject = Layer(model, layer, seen)
        found = curves(subject, progress=within(progress, number, len(layers)))
        cells.append(found[0])
        slopes.append(found[1])
        tables.append(tables_by_token(subject, seen.token, seen.previous))
    for name, frames in (("secret_cells", cells), ("secret_slopes", slopes), ("secret_tables", tables)):
        run.save_table(name, pd.concat(frames, ignore_index=True))


def _part(progress: Progress, begin: float, end: float) -> Progress:
    return lambda done, total, note="": progress(begin + (end - begin) * done / total, 20, note)
