"""Numbers and filled-in sentences as the notebook's French reader writes them."""

import string

NBSP = "\N{NO-BREAK SPACE}"
_FRENCH = str.maketrans(".-", ",−")
NOUNS = {"sm": "SM", "memory": "mémoire", "power_cap": "limite de puissance"}
NOUNS |= {"hardware_slowdown": "ralentissement matériel", "power_brake": "frein de l'alimentation"}
NOUNS |= {"software_thermal": "température, logiciel", "hardware_thermal": "température, matériel"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits and a decimal comma: 1.30712 → « 1,307 »."""
    rounded = float(f"{value:.{digits}g}")
    exponent = int(f"{rounded:e}".split("e")[1])
    return f"{rounded:.{max(0, digits - 1 - exponent)}f}".translate(_FRENCH)


def scientific(value: float) -> str:
    """Return a small figure with two significant digits: 0.0000371 → « 3,7·10⁻⁵ »."""
    digits, exponent = f"{value:.1e}".replace(".", ",").split("e")
    return f"{digits}·10{str(int(exponent)).translate(_RAISED)}" if value else "0"


def percent(fraction: float, digits: int = 2) -> str:
    """Return a fraction as a percentage: 0.0371 → « 3,7 % » (with a no-break space)."""
    return f"{number(100 * fraction, digits)}{NBSP}%"


def counted(count: int, noun: str) -> str:
    """Return « 1 époque », « 2 époques »."""
    return f"{count} {noun}{'s' if count > 1 else ''}"


class _French(string.Formatter):
    def format_field(self, value, spec: str) -> str:
        if isinstance(value, (tuple, list)):
            between = " ; " if any(isinstance(one, float) for one in value) else ", "
            return between.join(self.format_field(one, spec) for one in value) or "non visible"
        if spec.startswith("%"):
            return percent(value, int(spec[1:] or 2))
        if isinstance(value, float) and (not spec or spec.isdigit()):
            return number(value, int(spec or 4))
        if isinstance(value, str):
            return NOUNS.get(value, value)
        return format(value, spec).replace(",", NBSP) if spec == "," else format(value, spec)


def fill(template: str, values: dict) -> str:
    """Fill a sentence's fields: {x} a float of 4 digits, {x:2} of 2, {x:%} a percentage of 2,
    {x:%4} of 4, {x:,} a count in groups of three; a sequence is listed, a code is its noun."""
    return _French().vformat(template, (), values)
