"""The kept results as one table for README."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks: python -m tests.benchmarks --markdown -->", "<!-- end of benchmarks -->"
Row = tuple[str, str, str]


def markdown(results: Path = HERE / "results") -> str:
    """A table with what was measured, the figure and the goal; a benchmark without a result is left out."""
    rows, machines, cards = [], set(), set()
    for name, read in READERS.items():
        path = results / f"{name}.json"
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            rows += [(what, figure, goal, f"`{name.removesuffix('_large')}`") for what, figure, goal in read(kept)]
            if "device" in kept:
                cards.add(f"{kept['device']} in {kept['provenance']['machine']}")
            elif "provenance" in kept:
                machines.add(kept["provenance"]["machine"])
    lines = [
        "| what | measured | goal | benchmark |",
        "|---|---|---|---|",
        *("| " + " | ".join(r) + " |" for r in rows),
    ]
    told = f"CPU time, one thread, each ratio within one run ({'; '.join(sorted(machines))})."
    told += f" `gpu`: wall-clock time, the median of its rounds ({'; '.join(sorted(cards))})." if cards else ""
    return "\n".join([*lines, "", told])


def replaced(text: str, table: str) -> str:
    """README with this table between its marks; ValueError if it has none."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"README has no lines '{BEGIN}' and '{END}'")
    return f"{text.split(BEGIN)[0]}{BEGIN}\n{table}\n{text[text.index(END) :]}"


def _toys(kept: dict[str, Any]) -> Iterator[Row]:
    for row in kept["rows"]:
        shape = f"n = {row['n_features']}, m = {row['d_hidden']}"
        figure = f"{row['numba_times_better_peer']:.0f} times the better of two PyPI peers, "
        figure += f"{row['numba_matmul_share']:.0%} of what the matrix products alone allow"
        yield f"Toy training, {shape}", figure, f"{row['numba_goal']} times" if row["numba_goal"] else ""


def _phase(kept: dict[str, Any]) -> Iterator[Row]:
    for row in kept["rows"]:
        size = f"{row['resolution']} × {row['resolution']} phases of {row['n_features']} features"
        agreeing = f"{row['agreeing']:.1%} of cells agree with the theory"
        yield size, f"{row['cpu_seconds']:.0f} s for {row['seeds']:.0f} seeds a cell; {agreeing}", ""


def _stream(kept: dict[str, Any]) -> Iterator[Row]:
    for row in kept["rows"]:
        if row["goal"]:
            what = "everything measured" if row["part"] == "all" else "firing, energy, sinks and inputs"
            spread = f"({row['least']:.2f} to {row['most']:.2f})"
            yield (
                f"A pass with {what}, {row['dtype']}",
                f"{row['ratio']:.2f} times the plain pass {spread}",
                f"{row['goal']}",
            )
    alone = [row for row in kept["rows"] if not row["goal"] and row["part"] != "nothing"]
    worst = max(alone, key=lambda row: row["ratio"])
    yield "The dearest accumulator alone", f"{worst['ratio']:.2f} times ({worst['part']}, {worst['dtype']})", ""


def _memory(kept: dict[str, Any]) -> Iterator[Row]:
    first, last = kept["rows"][0], kept["rows"][-1]
    what = f"Peak memory of {last['tokens']:,} tokens against {first['tokens']:,}"
    yield what, f"{last['peak_mb']:,.0f} against {first['peak_mb']:,.0f} MB: {kept['ratio']:.3f}", f"{kept['goal']}"


def _capture(kept: dict[str, Any]) -> Iterator[Row]:
    worst = max(kept["rows"], key=lambda row: row["ratio"])
    families = ", ".join(row["family"] for row in kept["rows"])
    yield f"Capturing experts, weights and router logits ({families})", f"at most {worst['ratio']:.2f} times", "1.15"


def _nulls(kept: dict[str, Any]) -> Iterator[Row]:
    least, most = (f(row["ratio"] for row in kept["rows"]) for f in (min, max))
    figure = f"{kept['seconds']:.1f} s; {least:.0f} to {most:.0f} times as fast as permuting with NumPy"
    yield "100 permutations of three nulls, 8 million slots", figure, f"{kept['goal']:.0f} s"


def _coherence(kept: dict[str, Any]) -> Iterator[Row]:
    for row in kept["rows"]:
        size = f"F = {row['F']:,}, d = {row['d']}"
        if "share" in row:
            figure = f"{row['seconds']:.0f} s, {row['share']:.2f} of the product VᵀV at this machine's best rate"
            yield f"Coherence of {size}", f"{figure}; {row['memory_mb']:.0f} MB beyond the input", ""
        elif "times_faster" in row:
            yield f"Coherence of {size}", f"{row['times_faster']:.1f} times as fast as {row['peer']}", ""
        else:
            yield f"Coherence of {size}, from disk", f"{row['seconds']:.0f} s, {row['memory_mb']:.0f} MB", ""


def _secret(kept: dict[str, Any]) -> Iterator[Row]:
    closed, last = kept["rows"][0], kept["rows"][-1]
    beside = f"closed form {closed['cpu_seconds']:.0f} s (FVU {closed['fvu']:.3f}), Adam {last['cpu_seconds']:.0f} s "
    reached = f"(FVU {last['fvu']:.3f}{'' if kept['reached'] else ', not there yet'})"
    yield "A secret mixture of 64 experts to an equal level", f"{beside}{reached}: {kept['ratio']:.1f} times", ""


def _explorer(kept: dict[str, Any]) -> Iterator[Row]:
    for row in kept["rows"]:
        yield f"Explorer on 10 million routed rows: {row['what']}", f"{row['seconds']:.2f} s", f"{row['goal']:.0f} s"


def _startup(kept: dict[str, Any]) -> Iterator[Row]:
    for row in kept["rows"]:
        if row["goal"]:
            yield f"Start: {row['what']}", f"{row['seconds']:.2f} s", f"{row['goal']} s"


def _gpu(kept: dict[str, Any]) -> Iterator[Row]:
    card = " ".join(kept["device"].split()[:2])
    of_model: dict[str, list[dict[str, Any]]] = {}
    for row in kept["rows"]:
        if row["kind"] == "stream":
            of_model.setdefault(row["model"], []).append(row)
    for model, rows in of_model.items():
        few, many = rows[0], rows[-1]
        figure = (
            f"{many['plain_tokens_s']:,.0f} tokens a second plain, {many['ratio']:.2f} times as long with everything "
        )
        figure += f"measured ({few['ratio']:.2f} at {few['batch_tokens']:,}"
        figure += f", {many['capture_ratio']:.2f} with experts captured)" if "capture_ratio" in many else ")"
        which = model if model == "tinymoe" else f"The shape of {model}"
        yield f"{which} on {card}, {many['batch_tokens']:,} tokens at once", figure, ""
    for row in kept["rows"]:
        if row["kind"] == "coherence":
            figure = f"{row['seconds']:.1f} s, {row['ratio']:.2f} times F²d operations at the card's float32 rate; "
            size = f"Coherence of F = {row['F']:,}, d = {row['d']} on {card}"
            yield size, f"{figure}{row['peak_mb']:,.0f} MB beyond the input", ""


READERS = {
    "toys": _toys,
    "phase": _phase,
    "stream": _stream,
    "memory": _memory,
    "capture": _capture,
    "nulls": _nulls,
    "coherence": _coherence,
    "coherence_large": _coherence,
    "gpu": _gpu,
    "secret": _secret,
    "explorer": _explorer,
    "startup": _startup,
}
