"""Dividing integers without losing any."""

from collections.abc import Sequence


def divide(amount: int, weights: Sequence[int]) -> list[int]:
    """Parts of ``amount`` (>= 0) in proportion to ``weights`` (>= 0, not all zero), which sum to it exactly.

    What rounding leaves goes to the largest weight, the first of equals.
    """
    if len(weights) == 1:
        return [amount]
    total = sum(weights)
    parts = [amount * weight // total for weight in weights]
    parts[max(range(len(weights)), key=weights.__getitem__)] += amount - sum(parts)
    return parts
