"""What the explorer of experts costs on ten million routed rows (token x layer x slot): CPU seconds of the server.

    python -m tests.benchmarks.explorer [--run RUN_FOLDER] [--rows 10000000]

A run of `sparsescope probe experts` is repeated, document by document, until it has so many rows; its other tables stay
as they are (they do not grow with the text).  Without --run the shipped mixture routes 5,000 tokens first.  Measured in
one process that has shown another view before: the page's first run, then clicks on cells, each of a layer that was not
read yet.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from data import routed
from data.routed import Routes
from data.runs import Run, create

RESULTS = Path(__file__).parent / "results" / "explorer.json"
GOALS = {"page load": 3.0, "click on a cell": 1.0}


def main() -> None:
    """Print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, default=RESULTS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source = Run(asked.run) if asked.run else small(Path(place))
        settings = {"benchmark": "explorer", "rows": asked.rows, "run": source.settings}
        large = repeated(source, Path(place) / "large", asked.rows)
        rows = measured(large)
        size = {p.name: p.stat().st_size for p in large.path.glob("rout*.parquet")}
    for row in rows:
        print(f"{row['what']:18} {row['seconds']:.2f} s CPU  goal {row['goal']}")
    from data.runs import provenance

    record = {"rows": rows, "bytes": size, "provenance": provenance(seed=0, settings=settings)}
    asked.json.parent.mkdir(exist_ok=True)
    asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def small(place: Path) -> Run:
    """5,000 tokens through the shipped mixture."""
    from app.routing import RoutingConfig, measure

    config = RoutingConfig(n_tokens=5_000, control_tokens=1_000, permutations=10)
    run = create("small", config, kind="probe.experts", root_folder=place / "small")
    measure(config, run, lambda done, total, note="": None)
    return run


def repeated(source: Run, root: Path, rows: int) -> Run:
    """The run with its tokens and routes repeated to `rows` rows of (token, layer, slot)."""
    run = create(
        "large", {k: v for k, v in source.settings.items() if k != "kind"}, kind="probe.experts", root_folder=root
    )
    for name in source.table_names():
        if not name.startswith("route"):
            shutil.copy(source.path / f"{name}.parquet", run.path)
    routes = Routes(source.path)
    times = -(-rows // (routes.n_tokens * len(routes.layers) * routes.k))
    tokens = pq.read_table(source.path / f"{routed.TOKENS}.parquet").to_pandas()
    documents = pd.read_parquet(source.path / "routed_documents.parquet")
    parts = [documents.assign(document=documents["document"] + f" ({i})") for i in range(times)]
    run.save_table("routed_documents", pd.concat(parts, ignore_index=True))
    layers = [
        {"kept": routes.kept(i), "experts": routes.experts(i), "weights": routes.weights(i)} for i in routes.layers
    ]
    n_experts = [routes.n_experts(layer) for layer in routes.layers]
    for i in range(times):
        columns: dict[str, Any] = {n: tokens[n].to_numpy() for n in tokens}
        columns["document"] = columns["document"] + i * len(documents)
        routed.save_tokens_part(run.path, i, columns)
        routed.save_routes_part(run.path, "real", i, layers)
    routed.put_together(run.path, "real", range(times), routes.layers, n_experts, routes.k)
    routed.remove_parts(run.path)
    run.report("done", 1, 1)
    return run


def measured(run: Run) -> list[dict[str, Any]]:
    """CPU seconds of the page's first run and of clicks on cells, each on a layer read for the first time."""
    from streamlit.testing.v1 import AppTest

    os.environ["SPARSESCOPE_RUNS"] = str(run.path.parent)
    pages = Path(__file__).parents[2] / "app" / "pages"
    # another run's page first: what a server imports once is no part of the page
    warm = AppTest.from_file(str(pages / "experts.py"), default_timeout=120)
    warm.query_params["view"] = "Specialization"
    warm.run()
    test = AppTest.from_file(str(pages / "experts.py"), default_timeout=120)
    found = [("page load", seconds(test.run))]
    assert not test.exception and not test.error
    clicks = []
    cells = run.table("cells").query("condition == 'real' and labels == 'word_class'")
    for layer in sorted(cells["layer"].unique())[:4]:
        best = cells[cells["layer"] == layer].nlargest(1, "n").iloc[0]
        for key, value in (("layer", str(layer)), ("expert", str(best["expert"])), ("label", best["label"])):
            test.selectbox(key=key).set_value(value)
        clicks.append(seconds(test.run))
        assert not test.exception and not test.error
    found.append(("click on a cell", float(np.max(clicks))))
    return [{"what": what, "seconds": took, "goal": GOALS[what]} for what, took in found]


def seconds(run: Any) -> float:
    """CPU seconds of this process, all threads."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
