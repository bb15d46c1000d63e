"""Small mixtures of experts trained from scratch: snapshots of one, and series that differ in one thing."""

from app.panels import Experiment, experiments, title

SERIES = (
    *("loss", "specialization", "punctuation", "verbs", "constants", "affine", "means", "outputs", "weights"),
    *("load", "busiest", "topk"),
)
EXPERIMENTS = {
    "snapshots": Experiment(
        "One mixture over its training",
        "saturation",
        ("snapshots-routing",),
        "sparsescope train models/little-moe --family olmoe --activation silu --steps 500\n"
        "sparsescope probe snapshots models/little-moe",
    ),
    "series": Experiment(
        "Mixtures that differ in one thing",
        "series_models",
        tuple(f"series-{name}" for name in SERIES),
        "sparsescope series granularity",
    ),
}
TABLES = ("series_models", "series", "series_topk", "snapshots", "saturation", "specialization", "purest", "routing")

title("Training", "When does routing settle, and what do finer experts, more experts or balanced loads change?")
experiments(EXPERIMENTS, TABLES)
