"""What each expert of a layer writes on average.

from probes.expert_means import expert_means
means, used = expert_means(model, corpus, 3)   # (d_model, experts used), and which experts these are
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from pandas import DataFrame

from data.corpus import Corpus
from data.progress import Progress, silent
from data.tables import Tables
from probes import stream
from probes.firing import Sums
from probes.models import LanguageModel
from probes.sinks import KEPT
from probes.stream import Observation, StreamConfig


def expert_means(
    model: LanguageModel,
    corpus: Corpus,
    layer: int,
    config: StreamConfig | None = None,
    *,
    progress: Progress = silent,
) -> tuple[Float[np.ndarray, "d_model n_used"], list[int]]:
    """Mean unweighted output of each expert over the ordinary tokens sent to it, and which experts were used at all."""
    if not is_routed(model, layer):
        raise ValueError(f"layer {layer} of {model.title} has no experts; routed layers: {routed_layers(model)}")
    means = Means(model, layer)
    config = config or StreamConfig(n_tokens=4_000)
    stream.run(model, corpus, {"means": means}, config, layers=[layer], progress=progress)
    used = np.flatnonzero(means.arrays["tokens"])
    return (means.arrays["sums"][used] / means.arrays["tokens"][used, None]).T, used.tolist()


class Means(Sums):
    """Sums of each expert's unweighted output over the tokens sent to it."""

    sites = ("expert_index", "expert_output")

    def __init__(self, model: LanguageModel, layer: int):
        n = model.blocks[layer].n_experts
        super().__init__(sums=np.zeros((n, model.d_model)), tokens=np.zeros(n, dtype=np.int64))
        self.layer = layer

    def update(self, seen: Observation) -> None:
        """Add the outputs of ordinary tokens."""
        if seen.layer != self.layer or "expert_index" not in seen.sites:
            return
        keep = seen.group.cpu() == KEPT
        index = seen.sites["expert_index"].cpu().long()[keep].flatten()
        outputs = seen.sites["expert_output"].cpu()[keep].double().flatten(0, 1)
        used = index >= 0
        np.add.at(self.arrays["sums"], index[used].numpy(), outputs[used].numpy())
        self.arrays["tokens"] += np.bincount(index[used].numpy(), minlength=len(self.arrays["tokens"]))

    def tables(self) -> Tables:
        """`expert_means`: how many tokens each expert's mean is of."""
        n = len(self.arrays["tokens"])
        return Tables(expert_means=DataFrame({"expert": np.arange(n), "n_tokens": self.arrays["tokens"]}))


def routed_layers(model: Any) -> list[int]:
    """Layers whose feed-forward block is a mixture of experts."""
    return [layer for layer in range(model.n_layers) if is_routed(model, layer)]


def is_routed(model: LanguageModel, layer: int) -> bool:
    """Whether there is such a layer, and its feed-forward block is a mixture of experts."""
    return 0 <= layer < model.n_layers and model.blocks[layer].kind == "moe"
