"""For every claim, tables that bear it out, tables that say the opposite, and tables in between."""

from collections.abc import Callable

from tests.app.planted_tables import (
    Tables,
    agreement,
    bars,
    budget,
    busiest,
    by_class,
    cells,
    counted,
    course,
    fits,
    information,
    keeping,
    kinds,
    layers,
    pairs,
    phases,
    process,
    residuals,
    room,
    series,
    settings,
    snapshots,
    students,
    supports,
    toy_experts,
)

SPECIAL = ("beyond_type", "purest_PUNCT")
CONSTANT = ("constant_fvu", "affine_fvu")
FIRING = {"random_init": 0.5, "shuffled": 0.5, "gaussian": 0.4}
ENERGY = {"random_init": 0.5, "shuffled": 0.5, "gaussian": 0.5}

# claim -> (tables that bear it out, tables that say the opposite, tables in between)
PLANTED: dict[str, tuple[Callable[[], Tables], Callable[[], Tables], Callable[[], Tables] | None]] = {
    "neurons-active": (
        lambda: layers("firing_frequency", real=0.035, **FIRING),
        lambda: layers("firing_frequency", real=0.45, **FIRING),
        lambda: layers("firing_frequency", real=0.2, **FIRING),
    ),
    "ten-do-eighty": (
        lambda: layers("energy_top10", real=0.85, **ENERGY),
        lambda: layers("energy_top10", real=0.3, **ENERGY),
        lambda: layers("energy_top10", real=0.8, random_init=0.8),
    ),
    "two-kinds-of-neurons": (
        lambda: kinds((0.45, 0.45), (0.6, 0.1)),
        lambda: kinds((0.95, 0.02), (0.6, 0.2)),
        lambda: kinds((0.28, 0.4), (0.5, 0.2)),
    ),
    "topk-is-cheap": (lambda: keeping(1.05, 1.01), lambda: keeping(9.0, 1.5), lambda: keeping(8.3, 1.06)),
    "sparsity-everywhere": (
        lambda: settings(0.03, 0.05),
        lambda: settings(0.4, 0.7),
        lambda: settings(0.03, 0.7),
    ),
    "sparsity-late": (
        lambda: course(0.5, 0.49, 0.48, 0.3, 0.1),
        lambda: course(0.3, 0.4, 0.5, 0.5, 0.5),
        lambda: course(0.5, 0.2, 0.12, 0.11, 0.1),
    ),
    "attention-loses-rank": (
        lambda: residuals(1e-6, 1e-3, 0.2, 0.6),
        lambda: residuals(0.6, 0.6, 0.6, 0.6),
        lambda: residuals(0.1, 0.2, 0.2, 0.6),
    ),
    "ffn-and-skip-restore": (
        lambda: residuals(1e-6, 0.1, 0.2, 0.6),
        lambda: residuals(1e-6, 1e-5, 0.01, 0.02),
        lambda: residuals(1e-6, 1e-5, 0.1, 0.6),
    ),
    "more-features-than-dimensions": (lambda: room(1.0, 0.3), lambda: room(1.0, 1.0), lambda: room(1.0, 0.8)),
    "phases-follow-theory": (lambda: phases(1.0), lambda: phases(0.3), lambda: phases(0.95)),
    "experts-need-less-superposition": (
        lambda: toy_experts(3.8, 2.3, 3.5),
        lambda: toy_experts(2.3, 3.8, 3.5),
        lambda: toy_experts(3.8, 3.6, 3.5),
    ),
    "coherence-separates-supports": (lambda: bars(3, 5), lambda: bars(3, 2), lambda: bars(1, 5)),
    "number-of-supports": (lambda: supports(10), lambda: supports(36), None),
    "context-beats-routing": (lambda: process(0.3, 0.5), lambda: process(0.5, 0.3), None),
    "experts-take-word-classes": (lambda: by_class(0.85), lambda: by_class(0.25), lambda: by_class(0.45)),
    "syntax-over-domain": (lambda: information(0.2, 0.03), lambda: information(0.03, 0.2), None),
    "token-identity-explains-it": (
        lambda: information(0.1, 0.1, null=0.099),
        lambda: information(0.3, 0.1, null=0.02),
        lambda: information(0.2, 0.1, null=0.1),
    ),
    "association-predicts-damage": (
        lambda: agreement(0.8, 0.7),
        lambda: agreement(-0.2, 0.0),
        lambda: agreement(0.8, 0.3),
    ),
    "top-tenth-does-eighty": (lambda: busiest(0.85), lambda: busiest(0.3), lambda: busiest(0.6)),
    "early-experts-alike": (lambda: pairs(0.44, 0.1), lambda: pairs(0.1, 0.4), lambda: pairs(0.2, 0.15)),
    "experts-are-affine": (lambda: fits(0.01), lambda: fits(0.6), lambda: fits(0.2)),
    "finer-experts-specialise-more": (
        lambda: series(0.1, 0.3, SPECIAL, split=True),
        lambda: series(0.3, 0.1, SPECIAL, split=True),
        None,
    ),
    "more-experts-tend-to-constants": (
        lambda: series(0.5, 0.15, CONSTANT, split=False),
        lambda: series(0.15, 0.5, CONSTANT, split=False),
        lambda: series(0.5, 0.4, CONSTANT, split=False),
    ),
    "routers-learn-before-sparsity": (lambda: snapshots(100, 300), lambda: snapshots(300, 100), None),
    "mlps-are-secret-mixtures": (lambda: students(1.6, 1.0), lambda: students(0.9, 1.0), lambda: students(1.1, 1.0)),
    "not-on-gaussian-data": (lambda: students(1.6, 1.0), lambda: students(1.0, 1.6), lambda: students(1.2, 1.0)),
    "secret-mixtures-need-no-training": (
        lambda: students(1.5, 1.0, 1.5),
        lambda: students(1.5, 1.0, 1.0),
        lambda: students(1.5, 1.0, 1.2),
    ),
    "secret-mixtures-pay-for-their-router": (
        lambda: counted(1.3, 1.2),
        lambda: counted(0.8, 0.9),
        lambda: counted(1.3, 0.9),
    ),
    "block-is-an-embedding": (lambda: cells(0.7, 0.1), lambda: cells(0.95, 0.95), lambda: cells(0.9, 0.6)),
    "dense-block-size": (
        lambda: budget(90_113_536, 343.75, "1"),
        lambda: budget(180_355_072, 688.0, "1"),
        lambda: budget(90_177_536, 344.0, "1"),
    ),
    "expert-combinations": (
        lambda: budget(1, 1.0, "4,426,165,368"),
        lambda: budget(1, 1.0, "120"),
        None,
    ),
}
