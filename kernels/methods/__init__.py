"""The methods, a file each; `METHODS` is the only list of their names."""

from ..ground import Method
from .combined import AtMost, Cost, Plus, Scaled
from .d_optimal import DOptimal, d_optimal
from .facility_location import FacilityLocation, facility_location
from .feature_based import FeatureBased
from .fisher import Fisher
from .gist import Gist
from .go import Go, Sal
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
    "METHODS",
    "AtMost",
    "Cost",
    "DOptimal",
    "FacilityLocation",
    "FeatureBased",
    "Fisher",
    "Gist",
    "Go",
    "KCenter",
    "Plus",
    "RdsPlus",
    "Rocket",
    "Sal",
    "Scaled",
    "Sorted",
    "d_optimal",
    "facility_location",
    "k_center",
    "score_of",
]
