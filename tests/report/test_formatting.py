from anysubset.report.formatting import interval_text, p_text, printed_scale, signed
from anysubset.scoring.statistics import Interval


def test_differences_are_printed_in_the_unit_of_the_metric():
    assert (signed("dice", -0.012), signed("mae", 0.5)) == ("-1.2", "+0.500")
    assert (printed_scale("dice"), printed_scale("mae")) == (100, 1)


def test_a_difference_that_rounds_to_zero_has_no_sign():
    assert (signed("dice", -0.0001), signed("mae", 0.0001)) == ("0.0", "0.000")


def test_intervals_are_printed_from_low_to_high():
    assert interval_text("dice", Interval(0.02, -0.01, 0.05)) == "-1.0 to +5.0"
    assert interval_text("dice", None) == ""


def test_p_values_have_three_digits():
    assert [p_text(p) for p in (0.0004, 0.0123, 1.0, None)] == ["< .001", ".012", "1.000", ""]
