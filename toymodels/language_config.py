"""What a small language model is, and how it is trained: its settings, and the names they choose from."""

from typing import Any, Literal

import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data import Config

Family = Literal["llama", "gpt_neox", "olmoe", "qwen2_moe", "deepseek_v3"]
ROUTED = ("olmoe", "qwen2_moe", "deepseek_v3")
"""Families whose feed-forward blocks are mixtures of experts."""
Balancing = Literal["none", "auxiliary", "z_loss", "bias", "capacity"]
"""What keeps the loads of experts even: see `toymodels.balancing`."""


class LanguageConfig(Config):
    """The model, its text and its training."""

    family: Family = "llama"
    """Class of transformers: dense `llama` (gated) or `gpt_neox` (plain); mixtures `olmoe`, `qwen2_moe` (with a shared
    expert) or `deepseek_v3` (shared expert, sigmoid router)."""
    activation: Literal["relu", "silu", "gelu"] = "relu"
    """Activation function of the feed-forward blocks."""
    n_layers: PositiveInt = 2
    """Transformer blocks."""
    d_model: PositiveInt = 64
    """Width of the residual stream."""
    d_mlp: PositiveInt = 256
    """Neurons of a feed-forward block (of one expert, in a mixture)."""
    n_heads: PositiveInt = 4
    """Attention heads."""
    n_experts: PositiveInt = 8
    """Experts of each mixture; dense families ignore it."""
    k: PositiveInt = 2
    """Experts used for a token; dense families ignore it."""
    balancing: Balancing = "auxiliary"
    """What keeps the experts' loads even, see `toymodels.balancing`; where not given, the family's own way (`bias` for
    deepseek_v3, which alone has one; else `auxiliary`)."""
    capacity: PositiveFloat = 1.25
    """Tokens an expert takes of a batch under `capacity` balancing, as a multiple of its even share."""
    vocab_size: PositiveInt = 1_024
    """Tokens of the byte-level BPE that is trained first, on the training documents."""
    corpus: str = "sotu-modern"
    """Name or path of the text."""
    window: PositiveInt = 64
    """Tokens in a row of a batch."""
    batch_size: PositiveInt = 16
    """Rows of a batch, drawn anew at every step."""
    steps: PositiveInt = 500
    """AdamW steps."""
    learning_rate: PositiveFloat = 3e-3
    """Highest step length: reached after the first twentieth of the steps, then falling as a cosine to a tenth."""
    weight_decay: NonNegativeFloat = 0.1
    """AdamW's decay of matrices."""
    snapshots: PositiveInt = 12
    """Snapshots after the first one at step 0, evenly spaced in the logarithm of the step."""
    keep: PositiveFloat | None = None
    """Share of neurons kept for each token, those with the largest |z|; the others are set to 0.  None keeps all."""
    keep_from: NonNegativeInt = 0
    """Step from which on only that share is kept."""
    seed: NonNegativeInt = 0
    """Weights, batches, and which documents are held out."""

    @model_validator(mode="before")
    @classmethod
    def _balanced_as_the_family_is(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        own = "bias" if given.get("family") == "deepseek_v3" else "auxiliary"
        return {"balancing": own} | given

    @model_validator(mode="after")
    def _fits(self) -> "LanguageConfig":
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            raise ValueError(f"d_model={self.d_model} over n_heads={self.n_heads} must give an even width of a head")
        if self.family in ROUTED and self.k > self.n_experts:
            raise ValueError(f"k={self.k} experts a token exceed n_experts={self.n_experts}; choose k <= n_experts")
        if self.keep is not None and (self.keep > 1 or self.family in ROUTED):
            raise ValueError(
                "keep is a share of 1, for dense families: the neurons of stacked experts cannot be edited"
            )
        if self.balancing == "bias" and self.family in ROUTED[:-1]:
            raise ValueError(f"the routers of {self.family} have no bias; choose deepseek_v3 for balancing by bias")
        if self.vocab_size < 300:
            raise ValueError(f"vocab_size={self.vocab_size} cannot hold the 256 bytes and a few merges; choose >= 300")
        return self

    @property
    def marks(self) -> tuple[int, ...]:
        """Steps after which a snapshot is taken: 0, then log-spaced up to the last."""
        spaced = np.geomspace(1, self.steps, self.snapshots) if self.snapshots > 1 else [self.steps]
        return tuple(sorted({0, self.steps, *(round(float(s)) for s in spaced)}))
