"""Secret mixtures of experts of a language model as one piece of work that fills a run folder."""

from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from app.measurements import Dtype, OnText, model_and_text
from data.progress import Progress, within
from data.runs import Run

KIND = "probe.secret"
CLOSED = "closed_form"


class SecretRun(OnText):
    """Settings of `probe.secret`."""

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
    more_experts: tuple[PositiveInt, ...] = ()
    """Other numbers of experts that the closed form is fitted with, for a curve."""
    more_active: tuple[PositiveInt, ...] = ()
    """Other numbers of active neurons, of the closed form and of the dense student."""
    more_k: tuple[PositiveInt, ...] = ()
    """Other numbers of experts mixed for a token."""
    n_tokens: PositiveInt = 50_000
    """Tokens read; a fifth of the documents is held out."""
    tokens_per_document: PositiveInt | None = None
    """Taken from the start of each document; None: 1,020 or more."""
    steps: PositiveInt = 1_500
    """Adam steps of the trained students."""
    batch: PositiveInt = 512
    """Tokens a step."""
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
    measure(SecretRun.model_validate(run.asked), run, progress)


def demo(run: Run, config: Any, progress: Progress) -> None:
    """The demo's part: the closed form of one layer on 8,160 tokens, 16 experts, beside a dense layer of equal cost."""
    asked = SecretRun(
        model=config.model, corpus=config.corpus, n_experts=16, n_active=32, n_tokens=min(config.n_tokens, 8_160),
        steps=300, losses=False, seed=config.seed,
    )  # fmt: skip
    measure(asked, run, progress)


def measure(asked: SecretRun, run: Run, progress: Progress) -> None:
    """Tables `secret*`, and the students of the closed form on real activations as `student_LAYER.safetensors`."""
    model, corpus = model_and_text(asked, run, within(progress, 0, 20))
    from probes import secret
    from probes.secret.export import keep
    from probes.secret.fitting import Fit
    from probes.secret.losses import measure_losses
    from probes.secret.ratios import curves
    from probes.stream import StreamConfig

    layers = asked.layers or (model.n_layers // 2,)
    read = StreamConfig(n_tokens=asked.n_tokens, tokens_per_document=asked.tokens_per_document, seed=asked.seed)
    told = within(progress, 1, 20, share=7)
    inputs = secret.capture(model, corpus, layers, read, name="inputs", root=run.path, progress=told)
    students = [
        one
        for methods, seeds, settings in points(asked)
        for one in secret.grid(layers, methods=methods, conditions=asked.conditions, seeds=seeds, **settings)
    ]
    kept: dict[int, Fit] = {}

    def main(config: secret.SecretConfig) -> bool:
        here = (config.n_experts, config.n_active, config.k, config.seed)
        own = here == (asked.n_experts, asked.n_active, asked.k, asked.seeds[0])
        return own and config.method == CLOSED and config.condition == "real"

    def seen(found: Fit) -> None:
        config = found.config
        if main(config):
            keep(run, [found])
            kept[config.layer] = found

    told = within(progress, 8, 20, share=6)
    found = secret.compare(model, students=students, inputs=inputs, run=run, seen=seen, progress=told)
    if len(along := curves(found.secret)):
        run.save_table("secret_curves", along)
    if asked.losses and CLOSED in asked.methods:
        for config in students:  # a comparison taken up again has not shown those it had fitted
            if config.layer not in kept and main(config):
                seen(secret.fit(model, inputs=inputs, **config.model_dump()))
        told = within(progress, 14, 20, share=4)
        frame = measure_losses(model, corpus, kept.values(), read=read, n_tokens=asked.loss_tokens, progress=told)
        run.save_table("secret_losses", frame)
    if asked.embedding:
        _embedding(model, inputs, layers, run, within(progress, 18, 20, share=2))
    inputs.delete()
    progress(20, 20, "done")


def points(asked: SecretRun) -> list[tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]]:
    """(methods, seeds, settings) of all students: the point asked for with every method and seed, then the curves.

    A curve is the closed form with one setting changed, at the first seed; the dense student only knows n_active.
    """
    names = ("n_experts", "n_active", "rank", "k", "steps", "batch")
    own = {name: getattr(asked, name) for name in names}
    found = [(asked.methods, asked.seeds, own)]
    mixtures = tuple(m for m in asked.methods if m == CLOSED)
    both = tuple(m for m in asked.methods if m in (CLOSED, "dense"))
    for name, values, methods in (
        ("n_experts", asked.more_experts, mixtures),
        ("n_active", asked.more_active, both),
        ("k", asked.more_k, mixtures),
    ):
        for value in sorted(set(values) - {own[name]}):
            # along a curve the rank follows from n_active and k
            found.append((methods, asked.seeds[:1], own | {"rank": None, name: value}))
    return found


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
