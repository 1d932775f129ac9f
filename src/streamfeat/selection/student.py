"""Student's t: tail probability and quantile.

This module covers: the regularised incomplete beta function by its continued fraction.
This module does *not* cover: any other distribution.
"""

from __future__ import annotations

import math


def t_tail(t: float, freedom: float) -> float:
    """P(T > t) for ``freedom`` degrees of freedom.

    >>> round(t_tail(2.0, 10), 6)
    0.036694
    """
    if abs(t) < 1:  # here the other argument rounds to 1, beyond the difference would cancel
        half = 0.5 - 0.5 * _beta_share(0.5, freedom / 2, t * t / (freedom + t * t))
    else:
        half = 0.5 * _beta_share(freedom / 2, 0.5, freedom / (freedom + t * t))
    return half if t > 0 else 1.0 - half


def t_quantile(tail: float, freedom: float) -> float:
    """The t with P(T > t) = ``tail``, for tail < 0.5, by bisection.

    >>> round(t_quantile(0.05, 9), 4)
    1.8331
    """
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > tail:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def _beta_share(a: float, b: float, x: float) -> float:
    """I_x(a, b), by Lentz's evaluation of the continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_share(b, a, 1 - x)
    return math.exp(log_front) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    value = c = 1.0
    d = 0.0
    for k in range(1, 500):
        m = k // 2
        if k % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1.0 + step * d)
        c = 1.0 + step / c
        value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value
