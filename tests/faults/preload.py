"""What every child process needs, imported once by the server that they are forked from."""

import importlib

for name in (
    "transformer_lens",
    "transformers.generation.utils",
    "transformers.models.llama.modeling_llama",
    "transformers.models.olmoe.modeling_olmoe",
    "app.laziness",
    "app.routing",
    "app.secret",
    "app.toys",
    "probes.models.secret_mixture",
    "probes.secret.losses",
    "probes.sparsity",
    "toymodels.kernel",
    "toymodels.language",
    "tests.faults.work",
):
    # a server that fails here says nothing; its children would then import all of it one by one
    importlib.import_module(name)
