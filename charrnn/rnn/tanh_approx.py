"""A rational approximation of the hyperbolic tangent. All backends compute it bit-identically.

It uses only sums, products, one quotient and two NumPy ufuncs. So it accepts NumPy arrays and scalars, and the
vectors of ``kernels/simd.py``. NumPy and compiled code round each of these operations in the same way.
"""

from typing import Any

import numpy as np

LIMIT = np.float32(7.9053111)  # from here on, tanh is 1 in float32


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent in float32, accurate to a few units in the last place. NaN stays NaN.

    The coefficients are those of Eigen's ``ptanh``, a rational minimax approximation of degrees 13 and 6.
    """
    x = np.minimum(np.maximum(x, -LIMIT), LIMIT)
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
