"""Secret mixtures of experts: how well a sparsely activating mixture stands in for a dense feed-forward layer.

from probes import open_model, secret
found = secret.fit(open_model(), layer=15, corpus=open_corpus("sotu"), n_experts=64, rank=64)
found.fvu, found.active_parameters, found.route(x)
tables = secret.compare(model, students=secret.grid([3, 15, 27]), corpus=corpus)

Source: Boix-Adsera 2025, 'Secret mixtures of experts inside your LLM' (2512.18452).
"""

from probes.secret.cache import capture, read_inputs
from probes.secret.comparing import compare, grid
from probes.secret.fitting import METHODS, Fit, SecretConfig, fit, replacing
from probes.secret.pairs import CONDITIONS

__all__ = [
    "CONDITIONS", "METHODS", "Fit", "SecretConfig", "capture", "compare", "fit", "grid", "read_inputs", "replacing",
]  # fmt: skip
