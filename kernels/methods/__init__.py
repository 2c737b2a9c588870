"""The methods, a file each; `METHODS` is the only list of their names."""

from ..ground import Method
from .cobra import COBRA, cobra
from .combined import AtMost, Cost, Plus, Scaled
from .d_optimal import DOptimal, d_optimal
from .facility_location import FacilityLocation, facility_location
from .feature_based import FeatureBased
from .fisher import Fisher
from .flcg import FLCG, flcg
from .flmi import FLMI, flmi
from .flqmi import FLQMI, flqmi
from .gist import Gist
from .go import Go, Sal
from .graph_cut import GraphCut, graph_cut
from .k_center import KCenter, k_center
from .rds_plus import RdsPlus
from .rocket import Rocket
from .scores import LeastConfidence, MaxEntropy, MeanEntropy, MeanMargin, MeanNll, MinMargin, Random, Sorted, score_of

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
    )
}

__all__ = [
    "COBRA",
    "FLCG",
    "FLMI",
    "FLQMI",
    "METHODS",
    "AtMost",
    "Cost",
    "DOptimal",
    "FacilityLocation",
    "FeatureBased",
    "Fisher",
    "Gist",
    "Go",
    "GraphCut",
    "KCenter",
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
    "score_of",
]
