"""Turns drawn in lanes: every edge can be followed by eye."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from experiments.lanes import LANES, draw_lanes
from graphs.turns import Turn


def turns(*sources: list[int]) -> list[Turn]:
    """Turn i reads those of the numbers given for it."""
    unset: dict[str, Any] = {"role": "a", "move": "chat", "follows": None}
    return [
        Turn.model_construct(id=f"a/{i}", reads=tuple(f"a/{source}" for source in named), **unset)
        for i, named in enumerate(sources)
    ]


def drawn(*sources: list[int]) -> list[str]:
    rows = draw_lanes(turns(*sources))
    assert rows is not None
    return [row.rstrip() for row in rows]


def test_shapes() -> None:
    assert drawn([], [0], [1]) == ["○", "●", "●"]
    assert drawn([], [], [0, 1]) == ["○", "│ ○", "●─╯"]
    assert drawn([], [0], [0], [1, 2]) == ["○", "├─●", "● │", "╰─●"]
    # Nothing stands right below a turn that it has nothing to do with.
    assert drawn([], []) == ["○", "  ○"]
    assert draw_lanes([]) == []


@given(st.integers(0, 9).flatmap(lambda n: st.tuples(*(st.sets(st.integers(0, max(i - 1, 0))) for i in range(n)))))
def test_every_edge_can_be_followed(sources: tuple[set[int], ...]) -> None:
    named = [sorted(found) if i else [] for i, found in enumerate(sources)]
    rows = drawn(*named)
    places = [row.index("●" if named[i] else "○") for i, row in enumerate(rows)]
    for reader, found in enumerate(named):
        for source in found:
            lane = places[source]
            between = [row.ljust(40)[lane] for row in rows[source + 1 : reader]]
            # The source's lane goes down without a gap, and turns towards the reader in the reader's row.
            assert all(cell in "│├┤┼" for cell in between)
            row = rows[reader].ljust(40)
            low, high = sorted((lane, places[reader]))
            assert row[places[reader]] == "●" and row[lane] in ("├╰┼┴●" if lane == low else "┤╯┼┴●")
            assert all(cell in "─│┼┴" for cell in row[low + 1 : high])


def test_what_would_be_too_wide_is_not_drawn() -> None:
    count = LANES + 1
    assert draw_lanes(turns(*([] for _ in range(count)), list(range(count)))) is None
