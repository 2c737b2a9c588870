"""The methods, a file each; `METHODS` is the only list of their names."""

from ..ground import Method
from .d_optimal import DOptimal, d_optimal
from .facility_location import FacilityLocation, facility_location
from .k_center import KCenter, k_center

METHODS: dict[str, Method] = {m.name: m for m in (KCenter(), DOptimal(), FacilityLocation())}

__all__ = ["METHODS", "DOptimal", "FacilityLocation", "KCenter", "d_optimal", "facility_location", "k_center"]
