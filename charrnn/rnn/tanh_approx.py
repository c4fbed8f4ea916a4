"""The hyperbolic tangent by sums, products and one quotient, so that whoever computes it gets the same bits.

For numbers and for NumPy's arrays, and for compilers to compile. Knows nothing of the rest of the package.
"""

from typing import Any

import numpy as np

FURTHEST = np.float32(7.9053111)  # from 0; beyond it the hyperbolic tangent is 1 in float32


def quotient(x: Any) -> Any:
    """Tanh of float32 no further from 0: the polynomials that Eigen uses, off by a few units in the last place."""
    s = x * x
    p = s * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
    p = s * p + np.float32(-8.60467152213735e-11)
    p = s * p + np.float32(5.12229709037114e-08)
    p = s * p + np.float32(1.48572235717979e-05)
    p = s * p + np.float32(6.37261928875436e-04)
    p = s * p + np.float32(4.89352455891786e-03)
    q = s * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
    q = s * q + np.float32(2.26843463243900e-03)
    q = s * q + np.float32(4.89352518554385e-03)
    return x * p / q
