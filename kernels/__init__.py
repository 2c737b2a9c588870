"""Selection kernels in pure JAX: arrays in, arrays out."""

from .clustering import Clusters, kmeans
from .d_optimal import d_optimal
from .facility_location import facility_location
from .greedy import Block, Objective, Selection, maximize
from .k_center import k_center
from .near_duplicates import Duplicates, near_duplicates
from .partition import d_optimal_streamed, k_center_streamed, two_stage
from .plan import Plan, plan
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
    "d_optimal",
    "d_optimal_streamed",
    "facility_location",
    "k_center",
    "k_center_streamed",
    "kmeans",
    "maximize",
    "near_duplicates",
    "plan",
    "sequence_scores",
    "token_statistics",
    "token_statistics_from_hidden",
    "token_uncertainty",
    "two_stage",
]
