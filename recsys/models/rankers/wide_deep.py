"""Wide and deep, trained jointly (Cheng et al., Wide & Deep, 2016, section 3.3)."""

from recsys.models.rankers.deep import Deep
from recsys.models.rankers.linear import Wide

PARTS = (Wide, Deep)
