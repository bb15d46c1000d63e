"""Routing read by latents: planted regions that one latent names, and none where latents are noise."""

import numpy as np
import pytest
import torch

from probes.secret.closed_form import Shape, fit_mixture
from probes.secret.fitting import Fit, SecretConfig
from probes.secret.reading import beside_latents, routing_explained, routing_told
from probes.secret.score import distinct_sets, missed
from tests.probes.secret.test_closed_form import planted


def test_latents_that_name_the_regions_explain_the_routing_and_noise_does_not() -> None:
    pairs, region = planted(3_000)
    student = fit_mixture(pairs, Shape(n_experts=8, rank=4))
    held = missed(student, pairs, pairs.test)
    found = Fit(SecretConfig(), student, held, held, held, 0, len(pairs.train), torch.zeros(12), 0.0)
    named = {row.tobytes(): r for row, r in zip(pairs.x, region, strict=True)}

    def encode(x: torch.Tensor) -> torch.Tensor:
        labels = torch.tensor([named[row.tobytes()] for row in x.numpy()])
        return torch.nn.functional.one_hot(labels, 8).float()

    told = routing_explained(found, pairs, encode, token=np.arange(len(region)) % 7).set_index("by")["information"]
    assert told["latent"] > 0.9
    assert abs(told["shuffled latent"]) < 0.05 and abs(told["token"]) < 0.05
    table, latents = beside_latents(found, pairs, encode, k=1)
    rows = table.set_index("student")
    # eight constants: the best that codes of the regions can do
    y, r = pairs.y[pairs.train], region[pairs.train]
    means = np.stack([y[r == c].mean(0) for c in range(8)])
    test = pairs.y[pairs.test]
    best = ((means[region[pairs.test]] - test) ** 2).sum() / ((test - test.mean(0)) ** 2).sum()
    assert rows.loc["latents", "fvu"] == pytest.approx(best, rel=0.01)
    assert latents.k == 1 and distinct_sets(student, pairs) == 8


def test_a_dictionary_of_the_regions_makes_the_student_and_random_directions_do_not() -> None:
    pairs, region = planted(4_000)
    centres = np.stack([pairs.x[region == c].mean(0) for c in range(8)])
    unit = torch.nn.functional.normalize(torch.from_numpy(centres - centres.mean(0)), dim=1).T
    g = torch.Generator().manual_seed(0)
    # three latents a region, each a little off its direction
    decoder = unit.repeat(1, 3) + 0.02 * torch.randn(20, 24, generator=g)
    noise = torch.nn.functional.normalize(torch.randn(20, 8, generator=g), dim=0).repeat(1, 3)
    mean = torch.from_numpy(centres.mean(0))
    student = fit_mixture(pairs, Shape(n_experts=8, rank=12, ridge=0.01))
    held = missed(student, pairs, pairs.test)
    config = SecretConfig(n_experts=8, n_active=12, rank=12, ridge=0.01)
    found = Fit(config, student, held, held, held, 0, len(pairs.train), torch.zeros(12), 0.0)
    levels, told = {}, {}
    for name, directions in (("regions", decoder), ("random", noise)):

        def encode(x: torch.Tensor, directions: torch.Tensor = directions) -> torch.Tensor:
            return ((x - mean) @ directions).relu()

        table, _ = beside_latents(found, pairs, encode, 3, directions)
        levels[name] = table.set_index("student").loc["regions", "fvu"]
        told[name] = routing_told(found, pairs, encode, 3)
    assert levels["regions"] < 1e-3 < 0.01 < levels["random"]
    assert told["regions"]["told"] > 0.95 and told["regions"]["low"] <= told["regions"]["told"]
    assert told["random"]["high"] < told["regions"]["low"] and told["random"]["largest"] < 0.3
