"""The discrete-event model of an engine: schedules computed by hand, and what holds for any."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.simulation import Batch, Costs, Job, Limits, load_hardware
from envs.errors import ConfigError

COSTS = Costs(pass_s=1.0, prompt_s=0.1, decode_s=0.01)


def times(jobs: Sequence[Job], costs: Costs = COSTS, limits: Limits | None = None) -> list[Any]:
    """When each of some requests that arrive together is answered."""
    batch, now, answered = Batch(costs, limits or Limits()), 0.0, {}
    for job in jobs:
        batch.add(job)
    while not batch.idle:
        now += batch.begin()
        answered |= {id(job): now for job in batch.finish()}
    return [pytest.approx(answered[id(job)]) for job in jobs]


class TestSchedules:
    def test_one_request(self) -> None:
        # Its prompt and first token, then two tokens.
        assert times([Job(10, 3)]) == [2.0 + 2 * 1.01]

    def test_two_are_batched(self) -> None:
        assert times([Job(10, 3), Job(10, 2)]) == [3.0 + 1.02 + 1.01, 3.0 + 1.02]

    def test_what_exceeds_the_rows_waits(self) -> None:
        alone = 2.0 + 2 * 1.01
        assert times([Job(10, 3), Job(10, 3)], limits=Limits(rows=1)) == [alone, 2 * alone]

    def test_what_exceeds_the_cache_waits(self) -> None:
        # 13 + 13 tokens do not fit beside one another, 13 + 5 do; but nobody overtakes.
        first, second = 2.0 + 2 * 1.01, 2.0 + 0.3 + 1.02 + 1.01
        limits = Limits(cache=20)
        assert times([Job(10, 3), Job(10, 3), Job(3, 2)], limits=limits) == [first, first + second, first + 2.3 + 1.02]

    def test_long_prompts_are_computed_in_pieces(self) -> None:
        # 8, 8 and 4 tokens; beside the last piece there is room for the next prompt.
        limits = Limits(rows=4, tokens=8)
        assert times([Job(20, 1), Job(2, 1)], limits=limits) == [1.8 + 1.8 + 1.6] * 2

    def test_a_beginning_that_is_known_is_not_computed_again(self) -> None:
        # Of 33 tokens two whole blocks are known, of the conversation's 40 tokens its first 36.
        asked = [Job(33, 1, opening="q"), Job(33, 1, opening="q")]
        assert times(asked) == [1.0 + 3.4] * 2
        assert times(asked, limits=Limits(prefix_caching=False)) == [1.0 + 6.6] * 2
        batch = Batch(COSTS, Limits())
        for job, seconds in ((Job(33, 3, name="a"), 4.3), (Job(40, 1, follows="a"), 1.8)):
            batch.add(job)
            assert batch.begin() == pytest.approx(seconds)
            batch.finish()
            while not batch.idle:
                batch.begin()
                batch.finish()

    def test_beginnings_are_forgotten_when_there_is_no_room(self) -> None:
        limits = Limits(cache=40)
        asked = [Job(33, 1, opening="q"), Job(38, 1, opening="other"), Job(33, 1, opening="q")]
        assert times(asked, limits=limits)[-1] == 3.0 + 3.3 + 3.8 + 3.3

    def test_attention_grows_with_the_context(self) -> None:
        assert times([Job(5, 4)], Costs(pass_s=0.0, context_s=1.0)) == [6 + 7 + 8]

    def test_rows_that_are_padded_attend_to_as_much_as_the_longest(self) -> None:
        costs, asked = Costs(pass_s=0.0, context_s=1.0), [Job(5, 4), Job(2, 3)]
        assert times(asked, costs) == [(6 + 3) + (7 + 4) + 8, (6 + 3) + (7 + 4)]
        assert times(asked, costs, Limits(padded=True)) == [2 * 6 + 2 * 7 + 8, 2 * 6 + 2 * 7]

    def test_reading_the_weights_hides_computing(self) -> None:
        costs = Costs(pass_s=1.0, read_s=0.5, prompt_s=0.1, decode_s=0.01, admit_s=2.0, request_s=0.25)
        assert times([Job(10, 2), Job(1, 1)], costs) == [1.0 + 2.0 + 0.5 + 1.1 + 1.5, 1.0 + 2.0 + 0.5 + 1.1]

    def test_a_stretch_ends_early_for_what_arrives(self) -> None:
        batch = Batch(COSTS, Limits())
        batch.add(Job(10, 100))
        batch.begin()
        batch.finish()
        assert batch.begin() == pytest.approx(99 * 1.01)
        batch.add(Job(10, 1))
        assert batch.cut(3.5) == pytest.approx(4 * 1.01)
        assert not batch.finish()
        assert batch.begin() == pytest.approx(1.0 + 1.0 + 0.01)
        assert [job.reply for job in batch.finish()] == [1]

    def test_what_can_never_run_is_refused(self) -> None:
        with pytest.raises(ValueError, match="21 tokens, prompt and reply, does not fit into a cache of 20"):
            Batch(COSTS, Limits(cache=20)).add(Job(20, 1))
        with pytest.raises(ValueError, match="at least 1 token"):
            Batch(COSTS, Limits()).add(Job(0, 1))
        with pytest.raises(ConfigError, match="1 ≤ max_batch ≤ max_tokens, found 9 and 8"):
            Limits(rows=9, tokens=8)


JOBS = st.lists(
    st.builds(Job, st.integers(1, 60), st.integers(1, 40), st.sampled_from([None, "p", "q"]), st.none(), st.none()),
    min_size=1,
    max_size=12,
)
LIMITS = st.builds(
    lambda rows, more, room, cached: Limits(rows, rows + more, 100 + room, cached),
    st.integers(1, 5), st.integers(0, 40), st.integers(0, 200), st.booleans(),
)  # fmt: skip
ANY_COSTS = st.builds(Costs, *(st.floats(0.001, 1.0) for _ in range(7)))


@given(JOBS, LIMITS, ANY_COSTS)
def test_every_request_is_answered_once_and_every_token_counted(jobs: list[Job], limits: Limits, costs: Costs) -> None:
    batch = Batch(costs, limits)
    for job in jobs:
        batch.add(job)
    answered: list[Job] = []
    seconds = 0.0
    while not batch.idle:
        seconds += batch.begin()
        assert batch.rows <= limits.rows and batch.reserved <= limits.cache
        answered += batch.finish()
    assert sorted(map(id, answered)) == sorted(map(id, jobs))
    counts = batch.counts
    assert counts["requests"] == len(jobs) and batch.reserved == 0
    assert counts["prompt"] + counts["cached"] == sum(job.prompt for job in jobs)
    assert counts["decoded"] == sum(job.reply - 1 for job in jobs)
    assert counts["prompt"] + counts["decoded"] <= counts["steps"] * limits.tokens
    longest = max(job.reply for job in jobs)
    assert longest <= counts["steps"] and seconds >= longest * costs.pass_s


@given(JOBS, LIMITS, ANY_COSTS)
def test_stretches_are_what_single_steps_come_to(jobs: list[Job], limits: Limits, costs: Costs) -> None:
    def played(single: bool) -> list[tuple[float, int]]:
        batch, now, ends = Batch(costs, limits), 0.0, []
        for job in jobs:
            batch.add(job)
        while not batch.idle:
            taken = batch.begin()
            now += batch.cut(0.0) if single else taken
            ends += [(pytest.approx(now), jobs.index(job)) for job in batch.finish()]
        return ends

    assert played(False) == played(True)


class TestHardware:
    def test_each_model_fits_where_it_should(self) -> None:
        hardware = load_hardware()
        spread = {
            (model, gpu): hardware.served(model, gpu).gpus
            for model in ("qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-32b", "llama-3.3-70b")
            for gpu in ("l4", "a100", "h100", "h200")
            if (model, gpu) != ("llama-3.3-70b", "l4")
        }
        assert {gpu: spread["qwen2.5-7b", gpu] for gpu in ("l4", "h100")} == {"l4": 1, "h100": 1}
        assert [spread["llama-3.3-70b", gpu] for gpu in ("a100", "h100", "h200")] == [4, 4, 2]
        served = hardware.served("llama-3.3-70b", "l4")
        assert served.gpus == 8 and served.limits.cache > 0

    def test_a_step_is_computed_from_the_data_sheet(self) -> None:
        costs = load_hardware().served("qwen2.5-7b", "a100").costs
        assert costs.read_s == pytest.approx(7.62e9 * 2 / (2039e9 * 0.77))
        assert costs.decode_s == costs.prompt_s == pytest.approx(2 * 7.62e9 / (312e12 * 0.5))
        assert costs.context_s == pytest.approx(2 * 28 * 4 * 128 * 2 / (2039e9 * 0.77))
        both = load_hardware().served("qwen2.5-7b", "a100", 2).costs
        assert both.read_s == pytest.approx(costs.read_s / 2) and both.pass_s > costs.pass_s
        assert costs.decode_s / 2 < both.decode_s < costs.decode_s

    def test_every_figure_has_a_source(self) -> None:
        hardware = load_hardware()
        for row in (*hardware.gpus.values(), *hardware.prices.values(), *hardware.models.values()):
            assert len(row.source) > 10
        assert set(hardware.prices) == set(hardware.gpus)

    def test_a_file_of_ones_own_goes_before(self, tmp_path: Path) -> None:
        own = tmp_path / "own.toml"
        own.write_text(
            '[prices.h100]\nusd_per_hour = 2\ndate = "today"\nsource = "our contract"\n'
            '[engines."qwen2.5-7b@h100"]\npass_s = 0.5\nsource = "measured"\n',
            encoding="utf-8",
        )
        hardware = load_hardware(own)
        assert hardware.prices["h100"].usd_per_hour == 2 and hardware.prices["l4"].usd_per_hour > 0
        served = hardware.served("qwen2.5-7b", "h100")
        assert served.measured and served.costs == Costs(pass_s=0.5)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("[gpus.x]\nmemory_gb = -1\n", r"gpus\.x\.memory_gb: found -1"),
            ("[prizes.h100]\n", "unknown section .*'prizes'; did you mean 'prices'"),
            ("[", "cannot read the hardware file"),
        ],
    )
    def test_a_file_that_is_wrong(self, tmp_path: Path, text: str, complaint: str) -> None:
        own = tmp_path / "own.toml"
        own.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=complaint):
            load_hardware(own)

    def test_names_and_sizes_that_cannot_be(self) -> None:
        hardware = load_hardware()
        with pytest.raises(ConfigError, match=r"did you mean 'qwen2\.5-7b'"):
            hardware.served("qwen2.5-7", "h100")
        with pytest.raises(ConfigError, match="unknown GPU 'h10'"):
            hardware.served("qwen2.5-7b", "h10")
        with pytest.raises(ConfigError, match=r"141 GB of weights .* found 72 GB on 1 GPUs"):
            hardware.served("llama-3.3-70b", "h100", 1)
