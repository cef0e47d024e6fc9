import pytest

from helpers.display.french import counted, fill, number, percent, percents_apart, scientific

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1.30712, 4, "1,307"), (99.996, 4, "100,0"), (-2.5, 2, "−2,5"), (0, 2, "0,0")],
)
def test_significant_digits_and_a_decimal_comma(value, digits, text):
    assert number(value, digits) == text


def test_percentages_small_figures_and_plurals():
    assert percent(0.0371) == f"3,7{NBSP}%"
    assert [scientific(x) for x in (0.0000371, 0.0)] == ["3,7·10⁻⁵", "0"]
    assert [counted(n, "époque") for n in (0, 1, 2)] == ["0 époque", "1 époque", "2 époques"]


@pytest.mark.parametrize(
    ("fraction", "limit", "told"),
    [
        (0.000056, 0.1, ("0,0056", "10")),
        (0.100004, 0.1, ("10,0004", "10,0000")),
        (0.1, 0.1, ("10", "10")),
    ],
)
def test_two_percentages_that_differ_are_told_apart(fraction, limit, told):
    assert percents_apart(fraction, limit) == tuple(f"{one}{NBSP}%" for one in told)


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{x} ms", 1.30712, "1,307 ms"),
        ("{x:2} {x:.0f}", 68.123, "68 68"),
        ("{x:%}", 0.5, f"50{NBSP}%"),
        ("{x} {x:,}", 50_000, f"50000 50{NBSP}000"),
        ("{x}", (0.4914, 0.4822), "0,4914 ; 0,4822"),
        ("{x}", ["a", "b"], "A, b"),
        ("{x} {x!r}", "{y}", "{y} '{y}'"),
    ],
)
def test_a_sentence_is_filled(template, value, text):
    assert fill(template, {"x": value}, {"a": "A"}) == text
