"""Window groups: the sets of prompts whose energies are not independent, because they share energy windows.

A window is one reading of several images, so the energies of its prompts are known together only. Two prompts are in
one group if some window of the cell holds both, in any block and under any seed, or if a chain of such windows links
them. A group keeps its prompts through all windows, so that different groups share neither a window nor a prompt:
groups are the independent units of energy, as prompts are those of quality.

    window 1   p1 p2 p3 p4  seed 1 ┐
    window 3   p1 p2 p3 p4  seed 2 ┴ group {p1 p2 p3 p4}
    window 2   p5 p6 p7 p8  seed 1 ┐
    window 4   p5 p6 p7 p8  seed 2 ┴ group {p5 p6 p7 p8}

Cells that are looked at together need common groups: the finest that no cell's windows cut through. A cell whose
windows link all of its prompts has one group, hence no scatter that could be known. It would link the prompts of all
other cells as well, so it is left out of the common groups and has no draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# (prompts, cells): the place of the first prompt of each prompt's group
Groups = NDArray[np.intp]


def linked(prompts: int, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.intp]:
    """The groups that pairs of prompts make.

    Args:
        prompts: How many there are.
        one: Places of prompts.
        other: Places of prompts that share a window with them.

    Returns:
        (prompts,) the place of the first prompt of each prompt's group.
    """
    apart = np.flatnonzero(one != other)
    if not len(apart):
        return np.arange(prompts)
    one, other = one[apart], other[apart]
    # every prompt points to an earlier one of its group, in the end to the first (FastSV: Zhang, Azad and Hu, SIAM
    # Conf. on Parallel Processing for Scientific Computing, 2020); scipy has it too, but takes longer to import
    parent = np.arange(prompts)
    while True:
        earlier = parent[parent]
        low = np.minimum(earlier[one], earlier[other])
        for ends in (one, other):
            np.minimum.at(earlier, parent[ends], low)
            np.minimum.at(earlier, ends, low)
        if (earlier == parent).all():
            return parent
        parent = earlier


def among(groups: Groups, prompts: NDArray[np.intp]) -> Groups:
    """Return the groups of some of the prompts, given by their places: each is labelled by the first that is left."""
    kept = groups[prompts]
    for column in kept.T:
        _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
        column[:] = first[inverse]
    return kept


def group_counts(groups: Groups, known: NDArray[np.bool_]) -> NDArray[np.intp]:
    """How many groups each cell has energies of. groups, known: (prompts, cells) -> (cells,)."""
    if (groups == np.arange(len(groups))[:, None]).all():
        return np.asarray(known.sum(0), np.intp)
    counts = [len(np.unique(groups[known[:, c], c])) for c in range(groups.shape[1])]
    return np.array(counts, np.intp)


def common_groups(groups: Groups, known: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The groups that several cells have in common.

    Args:
        groups: (prompts, cells).
        known: (prompts, cells) where there is an energy.

    Returns:
        (prompts,) labels, and (cells,) which cells have one group only and are left out of them.
    """
    prompts = len(groups)
    lone = group_counts(groups, known) <= 1
    used = np.flatnonzero(~lone) if not lone.all() else np.arange(groups.shape[1])
    rows, columns = np.nonzero(known[:, used])
    return linked(prompts, rows.astype(np.intp), groups[rows, used[columns]]), lone
