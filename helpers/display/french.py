"""Numbers as the notebook's French reader writes them."""


def number(value: float, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits and a decimal comma: 1.30712 → « 1,307 »."""
    rounded = float(f"{value:.{digits}g}")
    exponent = int(f"{rounded:e}".split("e")[1])
    return f"{rounded:.{max(0, digits - 1 - exponent)}f}".replace(".", ",")


def scientific(value: float) -> str:
    """Return a small figure with two significant digits: 0.0000371 → « 3,7e-05 »."""
    return f"{value:.1e}".replace(".", ",")


def percent(fraction: float, digits: int = 2) -> str:
    """Return a fraction as a percentage: 0.0371 → « 3,7 % » (with a no-break space)."""
    return f"{number(100 * fraction, digits)}\N{NO-BREAK SPACE}%"


def percents_apart(fraction: float, limit: float) -> tuple[str, str]:
    """Both as percentages, with as many digits as it takes to see that they differ."""
    digits = 2
    while fraction != limit and digits < 12 and percent(fraction, digits) == percent(limit, digits):
        digits += 1
    return percent(fraction, digits), percent(limit, digits)


def counted(count: int, noun: str) -> str:
    """Return « 1 époque », « 2 époques »."""
    return f"{count} {noun}{'s' if count > 1 else ''}"
