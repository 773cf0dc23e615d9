"""List the situations of all kinds."""
from tests.odd_files import (
    calibration,
    disparities,
    flags,
    footage,
    images,
    listings,
    places,
    trajectories,
    weights,
)

SITUATIONS = [situation for kind in (images, listings, footage, weights, disparities, trajectories,
                                     calibration, flags, places)
              for situation in kind.SITUATIONS]
