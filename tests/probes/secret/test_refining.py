"""Gradient from the closed form on: a spoilt mixture is mended, and what cannot move stays."""

from dataclasses import replace

import torch

from probes.secret.closed_form import Shape, fit_mixture
from probes.secret.gradient import Course
from probes.secret.refining import refine
from probes.secret.score import missed
from tests.probes.secret.test_closed_form import planted


def test_a_spoilt_mixture_is_mended_and_the_one_given_stays() -> None:
    pairs, _ = planted(3_000)
    good = fit_mixture(pairs, Shape(n_experts=8, rank=12, ridge=0.01))
    g = torch.Generator().manual_seed(6)
    spoilt = replace(good, write=good.write + 0.1 * torch.randn(good.write.shape, generator=g))
    before = spoilt.write.clone()
    levels = {
        steps: missed(refine(spoilt, pairs, Course(steps=steps, batch=256, rates=(1e-4, 1e-2))), pairs, pairs.test).fvu
        for steps in (1, 300)
    }
    assert levels[300] < 0.3 * levels[1]
    assert torch.equal(spoilt.write, before)


def test_centroids_move_only_where_the_choice_is_soft() -> None:
    pairs, _ = planted(2_000)
    for k, moved in ((1, False), (2, True)):
        start = fit_mixture(pairs, Shape(n_experts=8, rank=3, k=k))
        after = refine(start, pairs, Course(steps=60, batch=256, rates=(1e-2,)))
        assert torch.equal(start.centroids, after.centroids) is not moved
        assert missed(after, pairs, pairs.train).fvu < missed(start, pairs, pairs.train).fvu
        assert not after.read.requires_grad and after.cost == start.cost


def test_steps_that_only_harm_are_not_taken() -> None:
    pairs, _ = planted(2_000)
    start = fit_mixture(pairs, Shape(n_experts=8, rank=12, ridge=0.01))
    assert refine(start, pairs, Course(steps=5, batch=64, rates=(10.0,))) is start
