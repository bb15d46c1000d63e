"""What the weights of a toy model look like: how much room each feature has, and which polytope they form.

Every function takes the matrix W of shape (d_hidden, n_features) whose columns are the features' directions.
"""

from toymodels.geometry._dynamics import dimensionality_over_time, jumps
from toymodels.geometry._measures import (
    capacity,
    dimensions_per_feature,
    feature_dimensionality,
    feature_norms,
    features,
    gram,
    superposition,
)
from toymodels.geometry._neurons import neurons
from toymodels.geometry._orientation import canonical_rotation, orient
from toymodels.geometry._recognition import Part, Recognition, interference_graph, parts, recognize
from toymodels.geometry._tables import film, matrices, neuron_weights

__all__ = [
    "Part",
    "Recognition",
    "canonical_rotation",
    "capacity",
    "dimensionality_over_time",
    "dimensions_per_feature",
    "feature_dimensionality",
    "feature_norms",
    "features",
    "film",
    "gram",
    "interference_graph",
    "jumps",
    "matrices",
    "neuron_weights",
    "neurons",
    "orient",
    "parts",
    "recognize",
    "superposition",
]
