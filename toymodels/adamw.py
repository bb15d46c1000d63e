"""AdamW for a stack of instances, each with its own learning rate and decay."""

from dataclasses import dataclass

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass
class AdamW:
    """m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  w <- w (1 - lr wd) - lr m' / (sqrt(v') + eps).

    m' = m / (1 - b1^t) and v' = v / (1 - b2^t).  Loshchilov & Hutter 2019, with PyTorch's defaults.  All parameters
    lie in one flat (instances, size) tensor, so that a step is eight calls however many tensors a model has.
    """

    params: Tensor
    grads: Tensor
    first: Tensor
    second: Tensor
    weight_decay: Tensor

    def step(self, t: int, learning_rate: Tensor) -> None:
        """Optimiser step number `t`, counted from 1; `learning_rate` is (instances, 1)."""
        self.first.lerp_(self.grads, 1 - BETA1)
        self.second.mul_(BETA2).addcmul_(self.grads, self.grads, value=1 - BETA2)
        root = self.second.sqrt().mul_((1 - BETA2**t) ** -0.5).add_(EPSILON)
        self.params.mul_(1 - learning_rate * self.weight_decay)
        self.params.sub_(torch.div(self.first, root).mul_(learning_rate / (1 - BETA1**t)))
