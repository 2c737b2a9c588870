"""The methods, a file each; `METHODS` is the only list of their names."""

from ..ground import Method
from .clusters import Aloe, Densest, InClusters, Nearest, one_a_cluster
from .combined import AtMost, Cost, Plus, Scaled
from .d_optimal import DOptimal, d_optimal
from .facility_location import FacilityLocation, facility_location
from .grape import Grape
from .k_center import KCenter, k_center
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
        Aloe(),
        Nearest(),
        Densest(),
        Grape(),
        S2L(),
    )
}

__all__ = [
    "METHODS",
    "S2L",
    "Aloe",
    "AtMost",
    "Cost",
    "DOptimal",
    "Densest",
    "FacilityLocation",
    "Grape",
    "InClusters",
    "KCenter",
    "Nearest",
    "Plus",
    "Scaled",
    "Sorted",
    "d_optimal",
    "facility_location",
    "k_center",
    "one_a_cluster",
    "score_of",
]
