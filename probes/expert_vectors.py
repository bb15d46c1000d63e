"""What each expert writes on average, read in the vocabulary."""

import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from probes.models import LanguageModel
from probes.value_vectors import readout

N_TOP = 8
"""Tokens named for each expert."""


def table(model: LanguageModel, means: dict[int, Float[Tensor, "n_experts d_model"]]) -> DataFrame:
    """The tokens that an expert's mean output raises most, through the final norm's gain and the unembedding.

    The layer's mean over experts is taken off first: what all experts write names none of them.  Columns `layer,
    expert, rank, token_id, token, logit, norm` (logit: of the unit vector; norm: of the mean output).
    """
    rows = readout(model).cpu()
    found = []
    for layer, mean in means.items():
        used = mean.norm(dim=1) > 0
        own = mean - mean[used].mean(0) if used.any() else mean
        for expert in used.nonzero()[:, 0].tolist():
            values, tokens = (rows @ torch.nn.functional.normalize(own[expert], dim=0)).topk(N_TOP)
            for rank, (value, token) in enumerate(zip(values.tolist(), tokens.tolist(), strict=True)):
                text = model.tokenizer.decode([token]) if model.tokenizer else str(token)
                found.append((layer, expert, rank, token, text, value, float(mean[expert].norm())))
    return DataFrame(found, columns=["layer", "expert", "rank", "token_id", "token", "logit", "norm"])
