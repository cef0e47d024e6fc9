"""Step 8: what is done with finished sessions."""

from helpers.after.baseline import (
    baseline_sentences,
    check_baseline,
    compare_baseline,
    enforce_baseline,
)

__all__ = ["baseline_sentences", "check_baseline", "compare_baseline", "enforce_baseline"]
