"""From the closed form on by gradient: every part of a mixture of cells moves, its choice of cells included where soft.

With one expert a token the weights of the choice are 1 and the centroids have no gradient: they stay.  With k > 1 the
softmax over the chosen scores lets them move.  A tensor's step is the rate times its own root mean square: slopes,
centroids and offsets differ by orders of magnitude.  The best of the rates is taken by training error, no step at all
among them: the error on documents not fitted on may still rise, since the closed form is shrunk and this is not.
"""

from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from data.progress import Progress, silent, within
from probes.secret.gradient import Course
from probes.secret.pairs import Pairs
from probes.secret.score import missed
from probes.secret.students import CellMixture


def refine(
    mixture: CellMixture, pairs: Pairs, course: Course, seed: int = 0, progress: Progress = silent
) -> CellMixture:
    """The mixture after `course.steps` steps of Adam at the best of `course.rates`; the one given stays as it is."""
    probe = pairs.train[:: max(1, len(pairs.train) // 8_192)]
    found = [mixture]
    for number, rate in enumerate(course.rates):
        found.append(_trained(mixture, pairs, course, rate, seed, within(progress, number, len(course.rates))))
    return min(found, key=lambda one: missed(one, pairs, probe).fvu)


def _trained(
    mixture: CellMixture, pairs: Pairs, course: Course, rate: float, seed: int, progress: Progress
) -> CellMixture:
    held = {f.name: getattr(mixture, f.name) for f in fields(mixture)}
    tensors = {name: w.to(course.device, copy=True) for name, w in held.items() if isinstance(w, Tensor)}
    free = {
        name: w.requires_grad_() for name, w in tensors.items() if w.numel() and (name != "centroids" or mixture.k > 1)
    }
    student = replace(mixture, **tensors)  # type: ignore[arg-type]
    steps = [{"params": [w], "lr": rate * float(w.detach().square().mean().sqrt())} for w in free.values()]
    optimiser = torch.optim.Adam(steps)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, course.steps)
    rng = np.random.default_rng(seed)
    for step in range(course.steps):
        x, y = pairs.take(np.sort(rng.choice(pairs.train, min(course.batch, len(pairs.train)), replace=False)))
        x, y = x.to(course.device), y.to(course.device)
        optimiser.zero_grad()
        (student(x) - y).square().sum(dim=1).mean().backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            progress(step + 1, course.steps, f"refined at rate {rate:g}, step {step + 1}")
    return replace(mixture, **{name: w.detach().cpu() for name, w in free.items()})  # type: ignore[arg-type]
