"""The turns of an episode drawn as a graph, one line a turn, in lanes as `git log --graph` has them.

A lane leads from a turn down to those that read it or go on from it; it ends at the last of them. A turn that reads
nobody is an open circle.
"""

from collections.abc import Sequence

from graphs.turns import Turn

LANES = 24
"""A drawing wider than this is no help."""


def draw_lanes(turns: Sequence[Turn]) -> list[str] | None:
    """One string for each turn, all equally wide; None when there would be more than LANES lanes.

    Args:
        turns: each after those that it reads or follows.
    """
    index = {turn.id: i for i, turn in enumerate(turns)}
    sources = [[index[id] for id in (turn.follows, *turn.reads) if id is not None and id in index] for turn in turns]
    last_reader = {source: i for i, named in enumerate(sources) for source in named}
    lanes: list[int | None] = []
    rows: list[str] = []
    above = -1
    for i, named in enumerate(sources):
        ending = [source for source in named if last_reader[source] == i]
        own = _lane(lanes, ending, above)
        rows.append(_row(lanes, named, own, ending))
        lanes = [None if lane in ending else lane for lane in lanes]
        lanes[own] = i if i in last_reader else None
        above = own
        if len(lanes) > LANES:
            return None
    width = max(map(len, rows), default=0)
    return [row.ljust(width) for row in rows]


def _lane(lanes: list[int | None], ending: Sequence[int], above: int) -> int:
    """Where a turn stands: in the lane of a turn that nobody reads after it (the one it follows first), else in a free
    one, but not right below a turn that it has nothing to do with. A lane is made when there is none."""
    if ending:
        return lanes.index(ending[0])
    free = [k for k, lane in enumerate(lanes) if lane is None and k != above]
    if not free:
        lanes.append(None)
    return free[0] if free else len(lanes) - 1


def _row(lanes: Sequence[int | None], sources: Sequence[int], own: int, ending: Sequence[int]) -> str:
    joined = [k for k, lane in enumerate(lanes) if lane in sources] + [own]
    first, last = min(joined), max(joined)
    cells = []
    for k, lane in enumerate(lanes):
        if k == own:
            cell = "●" if sources else "○"
        elif lane is not None and lane in sources:
            corner = "╰╯┴" if lane in ending else "├┤┼"
            cell = corner[0 if k == first else 1 if k == last else 2]
        else:
            cell = "│" if lane is not None else "─" if first < k < last else " "
        cells.append(cell + ("─" if first <= k < last else " "))
    return "".join(cells).rstrip()
