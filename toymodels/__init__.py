"""Toy models of superposition: synthetic features, small models, sweeps.  Knows no language model.

from toymodels import ToyConfig, train, sweep, geometry, phase
"""

from toymodels.config import ToyConfig
from toymodels.results import Snapshots, Toy, Toys
from toymodels.sweeps import Sweep, sweep
from toymodels.training import train

__all__ = ["Snapshots", "Sweep", "Toy", "ToyConfig", "Toys", "sweep", "train"]
