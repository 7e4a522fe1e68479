"""Balances parts of known sizes over processes, so that no process waits long.

The largest part goes first, to the process with the smallest load. The largest load is at most a
third more than the optimum (Graham 1969). A pure function, so every process gets the same result.
"""

from __future__ import annotations

from collections.abc import Sequence


def balance(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Return the indices of each rank's parts, largest first; a rank may have none."""
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += sizes[i]
    return shares
