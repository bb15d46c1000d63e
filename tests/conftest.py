"""Shapes that stand in signatures are checked at every call the tests make.

Left out: modules that check what people hand them and answer with a sentence (the checker would speak first), and
those that numba compiles.
"""

import os

# Tiny models gain nothing from threads, and lose much where they wait for one another on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

import tests.checking  # noqa: F401  the hook looks the checker up by name, in modules already there

CHECKED = {
    "probes": (
        "controls",
        "firing",
        "models",
        "sinks",
        "scan",
        "solvers",
        "collapse",
        "triggers",
        "value_vectors",
    ),
    "toymodels": ("adamw", "evaluation", "features", "gradients", "process_networks", "results", "stack", "training"),
}

install_import_hook(
    [f"{room}.{module}" for room, modules in CHECKED.items() for module in modules], "tests.checking.typecheck"
)
