"""How large the attacks are. Each row takes what a change can afford; tests/soak asks for more."""

import os


def seconds(usual: float) -> float:
    """How long an attack lasts: `usual`, or that times H3CAST_ATTACK_SCALE, at most a minute."""
    return min(60.0, usual * scale())


def count(usual: int) -> int:
    return int(usual * scale())


def scale() -> float:
    return float(os.environ.get("H3CAST_ATTACK_SCALE", 1))
