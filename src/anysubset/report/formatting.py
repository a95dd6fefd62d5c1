"""Text of differences, intervals and p-values in tables and on the page."""

from anysubset.scoring.scores import SHARES
from anysubset.scoring.statistics import Interval

BLANK = ""  # Text of an undefined value.


def printed_scale(metric: str) -> float:
    """Factor from a value to its printed number: 100 for metrics printed in per cent, otherwise 1."""
    return 100.0 if metric in SHARES else 1.0


def signed(metric: str, difference: float) -> str:
    """A signed difference between two values of a metric, in the unit in which the metric is printed.

    >>> signed("acc2", 0.0412), signed("mae", -0.02), signed("mae", -0.0001)
    ('+4.1', '-0.020', '0.000')
    """
    text = f"{100 * difference:+.1f}" if metric in SHARES else f"{difference:+.3f}"
    return text if float(text) else text[1:]


def interval_text(metric: str, interval: Interval | None) -> str:
    """`low to high`; blank for None."""
    return BLANK if interval is None else f"{signed(metric, interval.low)} to {signed(metric, interval.high)}"


def p_text(p: float | None) -> str:
    """A p-value with three digits and no leading zero, or `< .001`; blank for None.

    >>> p_text(0.0004), p_text(0.0123), p_text(1.0)
    ('< .001', '.012', '1.000')
    """
    if p is None:
        return BLANK
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
