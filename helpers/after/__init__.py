"""Step 8: what is done with finished sessions."""

from helpers.after import baseline

__all__ = ["baseline"]
