import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.reproductions.record import record, tell
from toymodels.process import fit, predict, run
from toymodels.process_law import Episodes, LawConfig, bayes, cells, draw_episodes, draw_law, fvu, generator
from toymodels.process_networks import (
    ARCHITECTURES,
    Networks,
    ProcessConfig,
    dispatch,
    multiply_adds,
    sees_context,
    width_for,
)

SMALL = ProcessConfig(multiply_adds=400, d_encoder=12, d_context=6, n_experts=4, steps=20, tasks_per_step=8)


def episodes(law, n_tasks, n_context, n_queries, n_seeds=1, stream=9):
    return draw_episodes(law, n_tasks, n_context, n_queries, [generator(s, stream) for s in range(n_seeds)])


def test_context_decides_exactly_its_share_of_the_variance() -> None:
    law = draw_law(LawConfig(context_share=0.3), (0, 1, 2))
    drawn = episodes(law, 20_000, 1, 8, n_seeds=3)
    assert torch.allclose(fvu(bayes(law, drawn, with_context=False), drawn.f), torch.tensor(0.3), atol=0.01)
    assert torch.allclose(drawn.f.flatten(1).var(1) / law.variance, torch.ones(3), atol=0.03)


def test_cells_are_those_of_the_nearest_centre() -> None:
    law = draw_law(LawConfig(), (5,))
    x = torch.randn(1, 500, 4, generator=generator(0, 9))
    assert torch.equal(cells(law, x), torch.cdist(x, law.centres).argmin(-1))


def test_bayes_agrees_with_gaussian_process_conditioning() -> None:
    """The same posterior by kernels: k(x, x') = phi^T B_c B_c'^T phi', float64, one task at a time."""
    law = draw_law(LawConfig(), (3,))
    drawn = episodes(law, 3, 6, 4)
    got = bayes(law, drawn, with_context=True)[0]

    def parts(x):
        phi = torch.cat([x, torch.ones(len(x), 1)], 1).double()
        cell = torch.cdist(x, law.centres[0]).argmin(1)
        rows = [p @ law.mix[0, c].double() for p, c in zip(phi, cell, strict=True)]
        fixed = [p @ law.mean[0, c].double() for p, c in zip(phi, cell, strict=True)]
        return torch.stack(fixed), torch.stack(rows)

    for task in range(3):
        fixed, a = parts(drawn.context_x[0, task])
        fixed_query, b = parts(drawn.x[0, task])
        kernel = a @ a.T + law.noise**2 * torch.eye(6).double()
        expected = fixed_query + b @ a.T @ torch.linalg.inv(kernel) @ (drawn.context_y[0, task].double() - fixed)
        assert torch.allclose(got[task].double(), expected, atol=2e-3)


def test_the_control_hands_each_task_whole_pairs_of_the_task_before() -> None:
    drawn = episodes(draw_law(LawConfig(), (0, 1)), 5, 3, 2, n_seeds=2)
    other = drawn.with_other_context()
    assert other.x is drawn.x and other.f is drawn.f and other.y is drawn.y
    for task in range(5):
        assert torch.equal(other.context_x[:, task], drawn.context_x[:, task - 1])
        assert torch.equal(other.context_y[:, task], drawn.context_y[:, task - 1])


def test_more_context_is_worth_more_and_sixteen_points_almost_settle_it() -> None:
    law = draw_law(LawConfig(), (0, 1, 2))
    drawn = episodes(law, 4000, 64, 8, n_seeds=3)
    scores = [fvu(bayes(law, drawn.first(n), with_context=True), drawn.f) for n in (4, 16, 64)]
    assert (scores[0] > scores[1]).all() and (scores[1] > scores[2]).all()
    assert scores[1].max() <= 0.001
    with pytest.raises(ValueError, match="draw more"):
        drawn.first(65)


def test_dispatch_computes_the_chosen_experts_and_their_gradients() -> None:
    networks = Networks("moe", 5, SMALL, (0, 1))
    rows = torch.randn(2, 30, 4, generator=generator(0, 9))
    chosen = torch.rand(2, 30, 4, generator=generator(0, 8)).topk(2).indices
    chosen[0] = torch.tensor([3, 1])  # as unbalanced as can be
    got = dispatch(networks.body, rows, chosen, 4)

    def expert(seed, e, x):
        for i, layer in enumerate(networks.body):
            x = x @ layer.weight[seed, e] + layer.bias[seed, e, 0]
            x = x.relu() if i < 2 else x
        return x[0]

    slow = [[[expert(s, e, rows[s, n]) for e in chosen[s, n]] for n in range(30)] for s in range(2)]
    expected = torch.stack([torch.stack([torch.stack(k) for k in n]) for n in slow])
    assert torch.allclose(got, expected, atol=1e-5)
    weights = torch.randn(2, 30, 2, generator=generator(0, 7))
    fast = torch.autograd.grad((got * weights).sum(), list(networks.body.parameters()))
    slowly = torch.autograd.grad((expected * weights).sum(), list(networks.body.parameters()))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(fast, slowly, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_multiply_adds_are_what_torch_counts(architecture) -> None:
    config = SMALL.model_copy(update={"k": 4, "queries_per_task": 8})  # all experts: no padding to count
    law = draw_law(config.law, (0,), 100)
    drawn = episodes(law, 6, 5, 8)
    networks = Networks(architecture, 7, config, (0,))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        networks(drawn)
    assert counter.get_total_flops() / 2 / (6 * 8) == pytest.approx(multiply_adds(architecture, 7, config, 5)["total"])


def test_all_architectures_spend_the_same_and_say_what_they_store() -> None:
    config = ProcessConfig()
    for n_context in (4, 16, 64):
        for architecture in ARCHITECTURES:
            width = width_for(architecture, config, n_context)
            spent = multiply_adds(architecture, width, config, n_context)["total"]
            assert 0.93 * config.multiply_adds <= spent <= config.multiply_adds
            assert multiply_adds(architecture, width + 1, config, n_context)["total"] > config.multiply_adds
    with pytest.raises(ValueError, match="raise multiply_adds"):
        width_for("cnp", ProcessConfig(multiply_adds=100), 64)
    with pytest.raises(ValueError, match="exceed n_experts"):
        Networks("moe", 4, ProcessConfig(k=9), (0,))


def test_a_seed_does_not_depend_on_how_many_are_stacked() -> None:
    alone, stacked = (fit("cnp_moe", SMALL, n_context=4, seeds=s) for s in ((1,), (0, 1)))
    for a, b in zip(alone.parameters(), stacked.parameters(), strict=True):
        assert torch.allclose(a[0], b[1], atol=1e-4)


def test_context_helps_only_when_it_is_the_tasks_own_and_nobody_beats_bayes() -> None:
    config = ProcessConfig(steps=700, test_tasks=2048)
    told = []
    tables = run(
        config,
        n_context=(16,),
        seeds=(0,),
        architectures=("moe", "cnp_moe"),
        progress=lambda done, total, note="": told.append((done, total)),
    )
    rows = tables["runs"].set_index("architecture")
    assert rows.fvu["moe"] > rows.fvu["bayes_without"] - 0.01
    assert rows.fvu["bayes_with"] < rows.fvu["cnp_moe"] < rows.fvu["bayes_without"]
    assert rows.fvu_other_context["cnp_moe"] > rows.fvu["bayes_without"]
    assert rows.macs[["moe", "cnp_moe"]].max() <= config.multiply_adds
    assert told[-1] == (2, 2) and told == sorted(told)
    assert set(tables["summary"].architecture) == {"bayes_without", "bayes_with", "moe", "cnp_moe"}


def test_predictions_do_not_depend_on_the_chunk() -> None:
    law = draw_law(SMALL.law, (0,), 1000)
    drawn = episodes(law, 1030, 4, 2)
    networks = Networks("cnp", 6, SMALL, (0,))
    scale = law.variance.sqrt()[:, None, None]
    whole, _ = predict(networks, drawn, scale)
    tail = Episodes(*(part[:, 1000:] for part in vars(drawn).values()))
    assert whole.shape == drawn.f.shape
    assert torch.allclose(whole[:, 1000:], predict(networks, tail, scale)[0], atol=1e-5)


@pytest.mark.reproduction
def test_two_by_two_at_equal_compute() -> None:
    config = ProcessConfig()
    tables = run(config, progress=tell)
    summary, runs = tables["summary"], tables["runs"]
    record(
        "process",
        config.model_dump(mode="json"),
        {"summary": summary.to_dict("records"), "runs": runs.to_dict("records")},
    )
    at16 = runs[runs.n_context == 16].set_index("architecture").fvu
    assert at16["cnp_moe"].max() <= 0.30
    assert at16["bayes_with"].max() <= 0.001
    free = [a for a in ARCHITECTURES if not sees_context(a)]
    assert runs[runs.architecture.isin([*free, "bayes_without"])].fvu.min() >= 0.42
    mean = at16.groupby("architecture").mean()
    assert mean["cnp_moe"] < mean["cnp"] < mean["moe"] < mean["dense"]
    assert mean["cnp_moe"] < mean["context_routed"]
