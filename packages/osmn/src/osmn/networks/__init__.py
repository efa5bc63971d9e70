"""Networks of OSMN: modules without I/O and devices."""

from osmn.networks.initialisation import initialise
from osmn.networks.model import OSMN, VARIANTS, Architecture, BaseModel
from osmn.networks.modulators import GUIDE_SIZE

__all__ = ["GUIDE_SIZE", "OSMN", "VARIANTS", "Architecture", "BaseModel", "initialise"]
