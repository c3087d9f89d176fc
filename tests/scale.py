"""How large the attacks are: small enough for each run, or as large as `make soak` wants them."""

import os

SOAKING = os.environ.get("CATBIRD_SOAK", "") not in ("", "0")


def scaled(normal: int, soak: int) -> int:
    """``normal`` for `make test`, ``soak`` where CATBIRD_SOAK is set: the same code, larger numbers."""
    return soak if SOAKING else normal
