"""Selection kernels in pure JAX: arrays in, arrays out."""

from .clustering import Clusters, kmeans
from .combine import affordable, at_most, plus, scaled, within
from .d_optimal import d_optimal
from .facility_location import facility_location
from .greedy import Block, Objective, Selection, maximize
from .k_center import k_center
from .modular import modular
from .near_duplicates import Duplicates, near_duplicates
from .partition import d_optimal_streamed, k_center_streamed, two_stage
from .plan import Plan, plan
from .sequential import maximize_sequential
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
    "Block",
    "Clusters",
    "Duplicates",
    "Objective",
    "Plan",
    "Selection",
    "SequenceScores",
    "TokenStatistics",
    "affordable",
    "at_most",
    "d_optimal",
    "d_optimal_streamed",
    "facility_location",
    "k_center",
    "k_center_streamed",
    "kmeans",
    "maximize",
    "maximize_sequential",
    "modular",
    "near_duplicates",
    "plan",
    "plus",
    "scaled",
    "sequence_scores",
    "token_statistics",
    "token_statistics_from_hidden",
    "token_uncertainty",
    "two_stage",
    "within",
]
