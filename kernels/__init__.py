"""Selection kernels in pure JAX: arrays in, arrays out."""

from . import measure
from .clustering import Clusters, kmeans
from .combine import affordable, at_most, plus, scaled, within
from .from_gains import from_gains
from .greedy import maximize
from .ground import Ground, Method, method, option, select
from .methods import (
    METHODS,
    AtMost,
    Cost,
    DOptimal,
    FacilityLocation,
    KCenter,
    Plus,
    Scaled,
    Sorted,
    d_optimal,
    facility_location,
    k_center,
    score_of,
)
from .modular import modular
from .near_duplicates import Duplicates, near_duplicates
from .objective import Block, Objective, Selection
from .partition import d_optimal_streamed, k_center_streamed, select_streamed, streams, two_stage
from .plan import plan
from .sequential import maximize_sequential
from .shapes import Plan
from .uncertainty import (
    SequenceScores,
    TokenStatistics,
    sequence_scores,
    token_statistics,
    token_statistics_from_hidden,
    token_uncertainty,
)

__version__ = "0.0.0"

__all__ = [
    "METHODS",
    "AtMost",
    "Block",
    "Clusters",
    "Cost",
    "DOptimal",
    "Duplicates",
    "FacilityLocation",
    "Ground",
    "KCenter",
    "Method",
    "Objective",
    "Plan",
    "Plus",
    "Scaled",
    "Selection",
    "SequenceScores",
    "Sorted",
    "TokenStatistics",
    "affordable",
    "at_most",
    "d_optimal",
    "d_optimal_streamed",
    "facility_location",
    "from_gains",
    "k_center",
    "k_center_streamed",
    "kmeans",
    "maximize",
    "maximize_sequential",
    "measure",
    "method",
    "modular",
    "near_duplicates",
    "option",
    "plan",
    "plus",
    "scaled",
    "score_of",
    "select",
    "select_streamed",
    "sequence_scores",
    "streams",
    "token_statistics",
    "token_statistics_from_hidden",
    "token_uncertainty",
    "two_stage",
    "within",
]
