"""A toy model as a torch module, and as a TransformerLens hooked module."""

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from toymodels.config import ToyConfig
from toymodels.gradients import activation_of

if TYPE_CHECKING:
    from toymodels.results import Toy


class ToyModel(nn.Module):
    """x' = relu(V^T h + b) with h = W x, or relu(W x); V = W unless the model is untied.  Samples come first here."""

    def __init__(
        self,
        config: ToyConfig,
        W: Float[Tensor, "d_hidden n_features"],
        b: Float[Tensor, " n_features"],
        V: Float[Tensor, "d_hidden n_features"] | None = None,
    ):
        super().__init__()
        self.config = config
        self.W = nn.Parameter(W.detach().clone())
        self.b = nn.Parameter(b.detach().clone())
        self.V = None if V is None else nn.Parameter(V.detach().clone())
        self._activation = activation_of(config)

    def hidden(self, x: Float[Tensor, "... n_features"]) -> Float[Tensor, "... d_hidden"]:
        """h, what the features are squeezed into."""
        h = x @ self.W.T
        return self._activation(h) if self.config.model in ("hidden_relu", "untied") else h

    def forward(self, x: Float[Tensor, "... n_features"]) -> Float[Tensor, "... n_features"]:
        """x', the reconstruction (or the computed target)."""
        return self.decode(self.hidden(x))

    def decode(self, h: Float[Tensor, "... d_hidden"]) -> Float[Tensor, "... n_features"]:
        """x' from h."""
        out = h @ (self.W if self.V is None else self.V) + self.b
        return out if self.config.model == "linear" else self._activation(out)


def hooked(toy: "Toy") -> nn.Module:
    """The toy as a TransformerLens `HookedRootModule`: hook points `hook_features`, `hook_hidden`, `hook_output`.

    `model.run_with_cache(x)` and `model.run_with_hooks(x, fwd_hooks=...)` work on it as on any hooked transformer.
    """
    from transformer_lens.hook_points import HookedRootModule, HookPoint

    class HookedToy(HookedRootModule):
        """A toy model with hook points."""

        def __init__(self) -> None:
            super().__init__()
            self.toy = ToyModel(toy.config, toy.W, toy.b, toy.V)
            self.hook_features, self.hook_hidden, self.hook_output = HookPoint(), HookPoint(), HookPoint()
            self.setup()

        def forward(self, x: Tensor) -> Tensor:
            """x' with every stage passed through its hook."""
            h = self.hook_hidden(self.toy.hidden(self.hook_features(x)))
            return self.hook_output(self.toy.decode(h))

    return HookedToy()
