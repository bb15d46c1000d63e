"""Context information and conditional computation are two things: a 2 x 2 at equal compute.

|                 | dense | mixture of experts |
|-----------------|-------|--------------------|
| sees x          | dense | moe                |
| sees x and r    | cnp   | cnp_moe            |

r = mean_i encoder(x_i, y_i) is the context vector of a conditional neural process (Garnelo et al. 2018, 1807.01613).
`context_routed` is the fifth: experts see x alone, the router sees x and r.  All five spend the same multiply-adds a
query, the encoder's share and the router included; parameters are shown, not equalised.  The Bayes oracles of
`process_law` bound them from below.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from pandas import DataFrame
from torch import Tensor

from data import Progress, Tables, silent
from data.progress import within
from toymodels.process_law import Episodes, bayes, draw_episodes, draw_law, fvu, generator
from toymodels.process_networks import (
    ARCHITECTURES,
    Architecture,
    Networks,
    ProcessConfig,
    has_experts,
    multiply_adds,
    sees_context,
    width_for,
)

DEFAULT = ProcessConfig()
_COLUMNS = [
    *("architecture", "n_context", "seed", "fvu", "fvu_other_context", "uses_context", "uses_experts", "width"),
    *("n_parameters", "macs_encoder", "macs_router", "macs_decoder", "macs", "busiest"),
]


def fit(
    architecture: Architecture,
    config: ProcessConfig = DEFAULT,
    *,
    n_context: int = 16,
    seeds: Sequence[int] = (0, 1, 2),
    progress: Progress = silent,
) -> Networks:
    """Train one architecture on fresh episodes, all seeds at once; loss is the squared error on noisy answers.

    Each seed has its own law, its own tasks and its own initial weights.
    """
    seeds = tuple(seeds)
    law = draw_law(config.law, seeds)
    scale = law.variance.sqrt()[:, None, None]
    networks = Networks(architecture, width_for(architecture, config, n_context), config, seeds)
    adam = torch.optim.Adam(networks.parameters(), lr=config.learning_rate)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        adam, config.learning_rate, total_steps=config.steps + 1, pct_start=0.05, cycle_momentum=False
    )
    draws = [generator(seed, 3) for seed in seeds]
    n_pairs = n_context if sees_context(architecture) else 0
    for step in range(config.steps):
        batch = draw_episodes(law, config.tasks_per_step, n_pairs, config.queries_per_step, draws)
        batch = _standardised(batch, scale)
        prediction, balance, _ = networks(batch)
        loss = (prediction - batch.y).pow(2).mean((1, 2)) + config.balance * balance
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        rate.step()
        if step % 100 == 99 or step + 1 == config.steps:
            progress(step + 1, config.steps, f"{architecture}, {n_context} context points, loss {loss.mean():.3f}")
    return networks


def predict(networks: Networks, episodes: Episodes, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions of f in its own units, and expert loads; in chunks of tasks so that memory stays small."""
    parts, loads = [], []
    with torch.no_grad():
        for start in range(0, episodes.x.shape[1], 1024):
            piece = Episodes(*(part[:, start : start + 1024] for part in vars(episodes).values()))
            out, _, load = networks(_standardised(piece, scale))
            parts.append(out * scale)
            loads.append(load)
    return torch.cat(parts, 1), torch.stack(loads).mean(0)


def run(
    config: ProcessConfig = DEFAULT,
    *,
    n_context: Sequence[int] = (4, 16, 64),
    seeds: Sequence[int] = (0, 1, 2),
    architectures: Sequence[Architecture] = ARCHITECTURES,
    progress: Progress = silent,
) -> Tables:
    """The whole comparison on the same test episodes.

    Tables:
    * `runs`, one row a predictor, context size and seed: `architecture` (five networks, `bayes_without`, `bayes_with`),
      `n_context, seed, fvu, uses_context, uses_experts, width, n_parameters, busiest` (share of the busiest expert),
      `fvu_other_context` (control: every task is given another task's context), `n_tasks, n_queries`, and multiply-adds
      a query `macs_encoder, macs_router, macs_decoder, macs`.
    * `summary`, one row a predictor and context size: `fvu` (mean over seeds), `fvu_min`, `fvu_max`, `fvu_sd`,
      `n_seeds`, the control `fvu_other_context`, the bounds `bayes_with` and `bayes_without`, `macs`, `n_parameters`.

    Context-free networks are trained once and shown at each context size.
    """
    seeds, sizes = tuple(seeds), tuple(sorted(n_context))
    law = draw_law(config.law, seeds)
    scale = law.variance.sqrt()[:, None, None]
    draws = [generator(seed, 4) for seed in seeds]
    test = draw_episodes(law, config.test_tasks, sizes[-1], config.test_queries, draws)
    rows = []
    for size in sizes:
        for name, informed in (("bayes_without", False), ("bayes_with", True)):
            score = fvu(bayes(law, test.first(size), with_context=informed), test.f)
            rows += [_row(name, size, s, v, informed, False) for s, v in zip(seeds, score.tolist(), strict=True)]
    jobs = [(a, c) for a in architectures for c in (sizes if sees_context(a) else sizes[:1])]
    for done, (architecture, size) in enumerate(jobs):
        relay = within(progress, done, len(jobs))
        networks = fit(architecture, config, n_context=size, seeds=seeds, progress=relay)
        prediction, load = predict(networks, test.first(size), scale)
        scores = fvu(prediction, test.f).tolist()
        control = fvu(predict(networks, test.first(size).with_other_context(), scale)[0], test.f).tolist()
        width = width_for(architecture, config, size)
        cost = multiply_adds(architecture, width, config, size)
        more = {f"macs_{part}" if part != "total" else "macs": value for part, value in cost.items()}
        more |= {"width": width, "n_parameters": networks.n_parameters}
        for shown in (size,) if sees_context(architecture) else sizes:
            for i, seed in enumerate(seeds):
                used = (sees_context(architecture), has_experts(architecture))
                row = _row(architecture, shown, seed, scores[i], *used) | more
                row |= {"fvu_other_context": control[i]} if used[0] else {}
                row |= {"busiest": float(load[i].max())} if used[1] else {}
                rows.append(row)
    frame = DataFrame(rows, columns=_COLUMNS).assign(n_tasks=config.test_tasks, n_queries=config.test_queries)
    return Tables({"runs": frame, "summary": _summary(frame)})


def _standardised(episodes: Episodes, scale: Tensor) -> Episodes:
    e = episodes
    return Episodes(e.context_x, e.context_y / scale, e.x, e.f / scale, e.y / scale)


def _row(name: str, size: int, seed: int, value: float, context: bool, experts: bool) -> dict[str, object]:
    return {
        "architecture": name,
        "n_context": size,
        "seed": seed,
        "fvu": value,
        "uses_context": context,
        "uses_experts": experts,
    }


def _summary(frame: DataFrame) -> DataFrame:
    grouped = frame.groupby(["architecture", "n_context"], sort=False)
    table = grouped.agg(
        fvu=("fvu", "mean"),
        fvu_min=("fvu", "min"),
        fvu_max=("fvu", "max"),
        fvu_sd=("fvu", "std"),
        n_seeds=("seed", "nunique"),
        fvu_other_context=("fvu_other_context", "mean"),
        macs=("macs", "first"),
        n_parameters=("n_parameters", "first"),
    ).reset_index()
    for bound in ("bayes_with", "bayes_without"):
        values = table[table["architecture"] == bound].set_index("n_context")["fvu"]
        table[bound] = pd.to_numeric(table["n_context"].map(values))
    return table
