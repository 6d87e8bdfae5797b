"""The recorded MAD debates become a run that every verb opens; nothing of them is lost, and what is lacking is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envs import ConfigError
from experiments import Run
from experiments.command import main
from experiments.imports.mad import PLAYERS, import_mad
from experiments.viewer.episode_page import read_episode
from experiments.viewer.library import Library
from graphs.turns import Episode, conversation


def original(episode: Episode) -> dict[str, Any]:
    """The line that an episode was made from."""
    names = {role: player for player, role in PLAYERS.items()}
    last = {names[turn.role]: turn for turn in episode.turns}
    players = {
        player: [{"role": m.role, "content": m.content} for m in conversation(episode.turns, turn)]
        for player, turn in last.items()
    }
    said = {"source": episode.task.question, "debate translation": episode.answer, **episode.notes[0]["recorded"]}
    return {**episode.task.details, **said, "players": players}


def test_every_field_of_every_debate_is_kept(data: Path, tmp_path: Path) -> None:
    file = data / "mad_debates_150.jsonl"
    run = import_mad(file, "debates", tmp_path)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    episodes = list(run.episodes())
    assert [original(episode) for episode in episodes] == lines
    assert {e.verdict and e.verdict.status for e in episodes} == {"unscorable"}
    turns = [turn for episode in episodes for turn in episode.turns]
    assert len(turns) == 2087 and all(turn.failure is None for turn in turns)
    reads = {turn.id: len(turn.reads) for turn in turns}
    assert (reads["affirmative/1"], reads["negative/0"], reads["moderator/0"], reads["judge/0"]) == (0, 1, 2, 2)
    assert "token ids" in run.config["imported"]["lacks"]


def test_every_verb_opens_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs", str(tmp_path)]
    file = str(data / "mad_debates_150.jsonl")
    assert main(["import", "mad", file, "--name", "debates", "--closer", "--json", *runs]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["episodes"], summary["calls"]) == (150, 2087)
    assert summary["unscorable"] == 2, "as like the one reference as the other"
    assert 0.5 < summary["accuracy"] < 0.95
    assert main(["show", "debates", "mad-0", *runs]) == 0
    shown = capsys.readouterr().out
    assert "● negative  opposes  reading affirmative" in shown and "extractive judge" in shown
    assert main(["compare", "debates", "debates", "--json", *runs]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][1]["comparison"]["difference"] == 0
    library = Library(tmp_path)
    page = read_episode(library, "debates", 0)
    library.close()
    assert len(page.turns) == 15 and not page.problems
    assert main(["import", "mad", file, "--name", "debates", *runs]) == 2, "the name is taken"


def debate(**changes: Any) -> dict[str, Any]:
    def chat(*replies: str) -> list[dict[str, str]]:
        return [
            said for r in replies for said in ({"role": "user", "content": "?"}, {"role": "assistant", "content": r})
        ]

    players = {"Affirmative side": chat("b", "x"), "Negative side": chat("y"), "Moderator": chat("no object")}
    fields = {"id": 1, "model_name": "m", "temperature": 0, "source": "s", "correct reference": "c"}
    return {**fields, "base translation": "b", "debate translation": "d", "players": players, **changes}


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.pop(key)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (without("source"), "source: Field required"),
        (lambda row: row.update(temperature="warm"), "temperature: .*'warm'"),
        (lambda row: row["players"].update(Stranger=[]), "players.Stranger"),
        (lambda row: row["players"].pop("Moderator"), r"expected N \+ 1, N, N and 0 or 2 replies .* moderator 0"),
        (lambda row: row["players"]["Moderator"].pop(), "Moderator: expected a reply at the end"),
        (lambda row: row["players"]["Moderator"].pop(0), "Moderator: expected a message before each reply"),
        (lambda row: row["players"]["Moderator"][0].update(role="root"), "players.Moderator.0.role"),
        (lambda row: row.update(id=1), "its id is that of line 1"),
    ],
)
def test_a_line_that_is_no_debate_is_named_and_nothing_is_written(
    tmp_path: Path, spoil: Callable[[Any], Any], problem: str
) -> None:
    second = debate(id=2)
    spoil(second)
    (tmp_path / "file.jsonl").write_text(f"{json.dumps(debate())}\n\n{json.dumps(second)}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"line 3: .*{problem}"):
        import_mad(tmp_path / "file.jsonl", "debates", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"", b"\n", b"{", b"[]\n", b"\xff\xfe"])
def test_a_file_that_holds_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=r"file\.jsonl"):
        import_mad(tmp_path / "file.jsonl", "debates", tmp_path / "runs")
    with pytest.raises(ConfigError, match="cannot read"):
        import_mad(tmp_path / "none.jsonl", "debates", tmp_path / "runs")


def test_a_reply_that_cannot_be_read_is_a_failure_of_its_turn(tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_text(json.dumps(debate()), encoding="utf-8")
    run = import_mad(tmp_path / "file.jsonl", None, tmp_path)
    (episode,) = Run.open(run.name, tmp_path).episodes()
    assert [turn.id for turn in episode.turns if turn.failure] == ["moderator/0"]
    assert episode.turns[0].answer == "b" and episode.stop_reason == "break in round 1"
