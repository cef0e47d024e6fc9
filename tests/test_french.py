import pytest

from helpers.display.french import counted, number, percent, percents_apart, scientific


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1.30712, 4, "1,307"),
        (0.0371, 2, "0,037"),
        (99.996, 4, "100,0"),
        (-2.5, 2, "-2,5"),
        (0, 2, "0,0"),
        (12345, 3, "12300"),
    ],
)
def test_significant_digits_and_a_decimal_comma(value, digits, text):
    assert number(value, digits) == text


def test_percentages():
    assert percent(0.0371) == "3,7\N{NO-BREAK SPACE}%"


def test_small_figures_in_scientific_notation():
    assert scientific(0.0000371) == "3,7e-05"
    assert scientific(0.0) == "0,0e+00"


def test_one_is_no_plural():
    assert [counted(n, "époque") for n in (0, 1, 2)] == ["0 époque", "1 époque", "2 époques"]


@pytest.mark.parametrize(
    ("fraction", "limit", "told"),
    [
        (0.000056, 0.1, ("0,0056", "10")),
        (0.09953, 0.1, ("9,95", "10,0")),
        (0.100004, 0.1, ("10,0004", "10,0000")),
        (0.1, 0.1, ("10", "10")),
        (0.1199, 0.123456, ("12,0", "12,3")),
    ],
)
def test_two_percentages_that_differ_are_told_apart(fraction, limit, told):
    assert percents_apart(fraction, limit) == tuple(f"{one}\N{NO-BREAK SPACE}%" for one in told)
