"""How a run goes about its episodes: garbage is looked for seldom."""

import gc

import pytest

from experiments.runner import collecting_seldom


@pytest.mark.parametrize(("before", "within"), [(700, 20_000), (50_000, 50_000), (0, 0)])
def test_garbage_is_looked_for_seldom_while_a_run_goes_on(before: int, within: int) -> None:
    usual = gc.get_threshold()
    try:
        gc.set_threshold(before)
        with collecting_seldom():
            assert gc.get_threshold()[0] == within
        assert gc.get_threshold() == (before, *usual[1:])
    finally:
        gc.set_threshold(*usual)
