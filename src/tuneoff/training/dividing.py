"""Who computes what: parts of known sizes over several processes, none of which should wait.

Largest first, each part to the process that has the least so far: at most a third more than
the best division there is (Graham 1969). A pure function, so every process comes to the same.
"""

from __future__ import annotations

from collections.abc import Sequence


def divided(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """The indices of each rank's parts, the largest first; a rank may have none."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += sizes[i]
    return shares
