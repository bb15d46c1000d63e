"""Phase diagrams of superposition: what a toy model does with one more feature than it has dimensions.

`diagram` fits each cell by the exact loss (no sampling) and sets it beside the closed-form solutions.
"""

from toymodels.phase._candidates import (
    PHASES,
    boundary,
    boundary_curve,
    candidate_losses,
    candidate_solutions,
    theoretical_phase,
)
from toymodels.phase._diagram import agreement, diagram, grid, measured_phase
from toymodels.phase._quadrature import exact_loss, loss_and_gradients, moments

__all__ = [
    "PHASES",
    "agreement",
    "boundary",
    "boundary_curve",
    "candidate_losses",
    "candidate_solutions",
    "diagram",
    "exact_loss",
    "grid",
    "loss_and_gradients",
    "measured_phase",
    "moments",
    "theoretical_phase",
]
