"""Numbers as text, for tables and pages. Imports no torch."""

import math


def number_text(value: float) -> str:
    """Three significant digits, and all digits before the point up to a million; "not finite" for NaN and inf."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def estimate_text(value: float, spread: float) -> str:
    """``value ± spread``, with two digits of the spread."""
    if not (math.isfinite(value) and math.isfinite(spread)):
        return f"{value:.3g} ± {spread:.3g}"
    digits = max(0, min(6, 1 - _exponent(spread or value)))
    return f"{value:.{digits}f} ± {spread:.{digits}f}"


def _exponent(x: float) -> int:
    """The power of ten of the first digit of x."""
    return int(f"{abs(x):e}".partition("e")[2]) if x else 0
