"""Loss and gradients of stacked toy models: by hand for ReLU and linear models, by autograd for other activations.

For x' = relu(V^T h + b), h = W x (then relu, if the hidden layer has one), target t and the loss
L = mean over batch and features of I_i (t_i - x'_i)^2:

    g = 2 I (x' - t) [x' > 0] / (B n),  dL/db = sum_B g,  dL/dV = h g^T,  e = (V g) [h > 0],  dL/dW = e x^T

Tied models have V = W and add the two.  Five products of 2 B n m operations: 10 B n m a step is the floor for time.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.config import ToyConfig

Params = dict[str, Tensor]
Activation = Callable[[Tensor], Tensor]
X = Float[Tensor, "instances n_features samples"]


def activation_of(config: ToyConfig) -> Activation:
    """The nonlinearity named by the settings; ValueError if torch has none of that name."""
    found = getattr(torch.nn.functional, config.activation, None) or getattr(torch, config.activation, None)
    if not callable(found):
        raise ValueError(
            f"torch.nn.functional has no activation '{config.activation}'; try relu, gelu, silu, softplus or tanh"
        )
    return found


def forward(config: ToyConfig, params: Params, x: X, activation: Activation | None = None) -> X:
    """x' for a stack of models, feature-major."""
    activation = activation or activation_of(config)
    hidden = params["W"] @ x
    if config.model in ("hidden_relu", "untied"):
        hidden = activation(hidden)
    out = params.get("V", params["W"]).mT @ hidden + params["b"][..., None]
    return out if config.model == "linear" else activation(out)


def losses(
    config: ToyConfig, params: Params, importance: Tensor, x: X, activation: Activation | None = None
) -> Float[Tensor, " instances"]:
    """Mean over samples and features of I_i (t_i - x'_i)^2, one an instance."""
    target = x.abs() if config.target == "absolute" else x
    error = forward(config, params, x, activation) - target
    return (error.square().mean(-1) * importance).mean(-1)


class Gradients:
    """Fills `grads` with dL/dparams of a batch and returns the losses; its memory is allocated once.

    Masks go through `threshold_backward` (a [b > 0] in one pass), since a comparison that makes booleans and a product
    that reads them take ten times as long.
    """

    def __init__(self, config: ToyConfig, params: Params, importance: Tensor, samples: int):
        k, m, n = params["W"].shape
        like = partial(torch.empty, dtype=params["W"].dtype)
        self.config, self.params, self.importance = config, params, importance
        self.grads = {name: torch.empty_like(value) for name, value in params.items()}
        self._scale = importance * (2 / (samples * n))
        self._hidden, self._back = like(k, m, samples), like(k, m, samples)
        self._out, self._error = like(k, n, samples), like(k, n, samples)
        self._half = like(k, m, n)

    def __call__(self, x: X, want_loss: bool = True) -> Float[Tensor, " instances"] | None:
        """Gradients at `x` into `grads`; losses if wanted (they cost a pass over the batch)."""
        config, params = self.config, self.params
        hidden, back, out, error = self._hidden, self._back, self._out, self._error
        encoder, decoder = params["W"], params.get("V", params["W"])
        nonlinear = config.model in ("hidden_relu", "untied")
        torch.bmm(encoder, x, out=hidden)
        if nonlinear:
            hidden.clamp_(min=0)
        torch.baddbmm(params["b"][..., None], decoder.mT, hidden, out=out)
        if config.model != "linear":
            out.clamp_(min=0)
        torch.sub(out, x.abs() if config.target == "absolute" else x, out=error)
        loss = None
        if want_loss:
            loss = (torch.linalg.vector_norm(error, dim=-1).square() * self.importance).mean(-1) / x.shape[-1]
        if config.model != "linear":
            _keep_where_positive(error, out)
        # The factor 2 I / (B n) is left out of `error` and put on the small matrices: one pass over the batch less.
        torch.sum(error, -1, out=self.grads["b"]).mul_(self._scale)
        torch.bmm(decoder * self._scale[:, None], error, out=back)
        if nonlinear:
            _keep_where_positive(back, hidden)
        from_output = self.grads["V"] if "V" in params else self._half
        torch.bmm(hidden, error.mT, out=from_output).mul_(self._scale[:, None])
        torch.bmm(back, x.mT, out=self.grads["W"])
        if "V" not in params:
            self.grads["W"].add_(self._half)
        return loss


def _keep_where_positive(values: Tensor, where: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(values, where, 0, grad_input=values)


class AutogradGradients:
    """The same by autograd: for any activation, and the oracle of the other one."""

    def __init__(self, config: ToyConfig, params: Params, importance: Tensor, activation: Activation | None = None):
        self.config, self.params, self.importance = config, params, importance
        self.grads = {name: torch.empty_like(value) for name, value in params.items()}
        self._activation = activation

    def __call__(self, x: X, want_loss: bool = True) -> Float[Tensor, " instances"]:
        """Gradients at `x` into `grads`; returns the losses."""
        leaves = {name: value.detach().requires_grad_() for name, value in self.params.items()}
        with torch.enable_grad():
            loss = losses(self.config, leaves, self.importance, x, self._activation)
            found = torch.autograd.grad(loss.sum(), list(leaves.values()))
        for name, gradient in zip(leaves, found, strict=True):
            self.grads[name].copy_(gradient)
        return loss.detach()
