import pytest
import torch

from toymodels import ToyConfig, train
from toymodels.gradients import forward
from toymodels.model import ToyModel

MODELS = ("relu", "linear", "hidden_relu", "untied")


def by_loops(config: ToyConfig, W: torch.Tensor, V: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> list[float]:
    """One sample through the equations, a scalar at a time."""
    m, n = W.shape
    hidden = [sum(float(W[j, i] * x[i]) for i in range(n)) for j in range(m)]
    if config.model in ("hidden_relu", "untied"):
        hidden = [max(h, 0.0) for h in hidden]
    out = [sum(float(V[j, i]) * hidden[j] for j in range(m)) + float(b[i]) for i in range(n)]
    return out if config.model == "linear" else [max(z, 0.0) for z in out]


@pytest.mark.parametrize("kind", MODELS)
def test_models_are_what_their_equations_say(kind: str) -> None:
    config = ToyConfig(n_features=4, d_hidden=3, model=kind)
    generator = torch.Generator().manual_seed(1)
    W, V = torch.randn(2, 3, 4, generator=generator)
    b, x = torch.randn(2, 4, generator=generator)
    decoder = V if kind == "untied" else W
    expected = by_loops(config, W, decoder, b, x)
    module = ToyModel(config, W, b, V if kind == "untied" else None)
    assert module(x[None])[0].tolist() == pytest.approx(expected, abs=1e-5)
    params = {"W": W[None], "b": b[None]} | ({"V": V[None]} if kind == "untied" else {})
    assert forward(config, params, x[None, :, None])[0, :, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_hooked_toy_caches_and_can_be_intervened_on() -> None:
    toy = train(ToyConfig(), steps=20, engine="torch").best()
    model, plain = toy.hooked(), toy.module()
    x = torch.rand(7, 5)
    out, cache = model.run_with_cache(x)
    assert torch.equal(out, plain(x))
    assert torch.equal(cache["hook_hidden"], plain.hidden(x))
    assert torch.equal(cache["hook_features"], x)
    cleared = model.run_with_hooks(x, fwd_hooks=[("hook_hidden", lambda h, hook: torch.zeros_like(h))])
    assert torch.allclose(cleared, toy.b.relu().expand(7, 5))


def test_an_activation_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no activation 'bogus'"):
        train(ToyConfig(activation="bogus"), steps=1)
