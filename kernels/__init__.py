"""Selection kernels in pure JAX: arrays in, arrays out."""

from . import measure
from .clustering import Clusters, kmeans
from .combine import affordable, at_most, plus, scaled, within
from .from_gains import from_gains
from .greedy import maximize
from .ground import Ground, Method, method, option, select
from .methods import (
    COBRA,
    FLCG,
    FLMI,
    FLQMI,
    METHODS,
    AtMost,
    Cost,
    DOptimal,
    FacilityLocation,
    FeatureBased,
    Fisher,
    Gist,
    Go,
    GraphCut,
    KCenter,
    Plus,
    RdsPlus,
    Rocket,
    Sal,
    Scaled,
    Sorted,
    cobra,
    d_optimal,
    facility_location,
    flcg,
    flmi,
    flqmi,
    graph_cut,
    k_center,
    score_of,
)
from .modular import modular
from .near_duplicates import Duplicates, near_duplicates
from .objective import Block, Objective, Selection
from .plan import plan
from .sequential import maximize_sequential
from .shapes import Plan
from .stopping import until
from .streamed import d_optimal_streamed, k_center_streamed, select_streamed, streams
from .uncertainty import (
    PromptScores,
    SequenceScores,
    TokenStatistics,
    prompt_scores,
    sequence_scores,
    token_statistics,
    token_statistics_from_hidden,
    token_uncertainty,
)
from .value import gain, value

__version__ = "0.0.0"

__all__ = [
    "COBRA",
    "FLCG",
    "FLMI",
    "FLQMI",
    "METHODS",
    "AtMost",
    "Block",
    "Clusters",
    "Cost",
    "DOptimal",
    "Duplicates",
    "FacilityLocation",
    "FeatureBased",
    "Fisher",
    "Gist",
    "Go",
    "GraphCut",
    "Ground",
    "KCenter",
    "Method",
    "Objective",
    "Plan",
    "Plus",
    "PromptScores",
    "RdsPlus",
    "Rocket",
    "Sal",
    "Scaled",
    "Selection",
    "SequenceScores",
    "Sorted",
    "TokenStatistics",
    "affordable",
    "at_most",
    "cobra",
    "d_optimal",
    "d_optimal_streamed",
    "facility_location",
    "flcg",
    "flmi",
    "flqmi",
    "from_gains",
    "gain",
    "graph_cut",
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
    "prompt_scores",
    "scaled",
    "score_of",
    "select",
    "select_streamed",
    "sequence_scores",
    "streams",
    "token_statistics",
    "token_statistics_from_hidden",
    "token_uncertainty",
    "until",
    "value",
    "within",
]
