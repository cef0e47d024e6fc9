"""Why a variant is not timed, by code; annex.display has a French sentence for each."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """A reason's code, and the values that its sentence names (JSON-ready)."""

    code: str
    values: dict[str, Any] = field(default_factory=dict)


class VariantFailed(RuntimeError):
    """A variant cannot be built here, or computes something else than the reference."""

    def __init__(self, code: str, **values: Any):
        super().__init__(f"{code} {values}")
        self.refusal = Refusal(code, values)
