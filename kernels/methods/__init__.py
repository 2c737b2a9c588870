"""The methods, a file each; `METHODS` is the only list of their names."""

from ..ground import Method
from .clusters import Aloe, Densest, InClusters, Nearest, one_a_cluster
from .cobra import COBRA, cobra
from .combined import AtMost, Cost, Plus, Scaled
from .d_optimal import DOptimal, d_optimal
from .delift import Delift, scaled_utility
from .facility_location import FacilityLocation, facility_location
from .feature_based import FeatureBased
from .fisher import Fisher
from .flcg import FLCG, flcg
from .flmi import FLMI, flmi
from .flqmi import FLQMI, flqmi
from .gist import Gist
from .go import Go, Sal
from .grape import Grape
from .graph_cut import GraphCut, graph_cut
from .k_center import KCenter, k_center
from .rds_plus import RdsPlus
from .rocket import Rocket
from .s2l import S2L
from .scores import (
    Energy,
    GradNorm,
    LeastConfidence,
    MaxEntropy,
    MeanEntropy,
    MeanMargin,
    MeanNll,
    MinMargin,
    Random,
    Sorted,
    score_of,
)

METHODS: dict[str, Method] = {
    made.name: made
    for made in (
        Random(),
        MeanEntropy(),
        MaxEntropy(),
        LeastConfidence(),
        MeanNll(),
        MeanMargin(),
        MinMargin(),
        Energy(),
        GradNorm(),
        KCenter(),
        DOptimal(),
        FacilityLocation(),
        GraphCut(),
        FLCG(),
        FLQMI(),
        FLMI(),
        COBRA(),
        Go(),
        Sal(),
        RdsPlus(),
        Rocket(),
        FeatureBased(),
        Gist(),
        Fisher(),
        Aloe(),
        Nearest(),
        Densest(),
        Grape(),
        S2L(),
        Delift(),
    )
}

__all__ = [
    "COBRA",
    "FLCG",
    "FLMI",
    "FLQMI",
    "METHODS",
    "S2L",
    "Aloe",
    "AtMost",
    "Cost",
    "DOptimal",
    "Delift",
    "Densest",
    "FacilityLocation",
    "FeatureBased",
    "Fisher",
    "Gist",
    "Go",
    "Grape",
    "GraphCut",
    "InClusters",
    "KCenter",
    "Nearest",
    "Plus",
    "RdsPlus",
    "Rocket",
    "Sal",
    "Scaled",
    "Sorted",
    "cobra",
    "d_optimal",
    "facility_location",
    "flcg",
    "flmi",
    "flqmi",
    "graph_cut",
    "k_center",
    "one_a_cluster",
    "scaled_utility",
    "score_of",
]
