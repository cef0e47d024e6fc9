import pytest

from helpers.display.french import fill, percents_apart

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("fraction", "told"),
    [(0.000056, ("0,0056", "10")), (0.100004, ("10,0004", "10,0000")), (0.1, ("10", "10"))],
)
def test_two_percentages_that_differ_are_told_apart(fraction, told):
    assert percents_apart(fraction, 0.1) == tuple(f"{one}{NBSP}%" for one in told)


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{x} {x:2} {x:.0f} {x:%}", 0.51234, f"0,5123 0,51 1 51{NBSP}%"),
        ("{x} {x:,}", 50_000, f"50000 50{NBSP}000"),
        ("{x}", (0.4914, 0.4822), "0,4914 ; 0,4822"),
        ("{x}", ["sm", "b"], "SM, b"),
        ("{x}", [], "non visible"),
        ("{x} {x!r}", "{y}", "{y} '{y}'"),
    ],
)
def test_a_sentence_is_filled(template, value, text):
    assert fill(template, {"x": value}) == text
