import pytest

from helpers.display.french import fill

NBSP = "\N{NO-BREAK SPACE}"


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
