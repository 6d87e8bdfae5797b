"""Inspect: a run as an `.eval` log, which `inspect view` opens and `inspect_ai.log` reads.

A task is a sample, its episodes are epochs. An episode's turns are model events in a span of their role, its verdict is
the score `verdict` (C, I, or N where no answer could be read; without a value where it cannot be judged), a failed
episode a sample with an error. What Inspect has no place for (ids and log-probabilities of tokens, who read whom,
rounds, the topology's notes) goes into metadata and info events. Inspect's writer holds a log in memory: what is beyond
a bound is left out, and the log says so.
"""

# pyright: reportMissingImports=false

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from inspect_ai.event import Event, InfoEvent, ModelEvent, ScoreEvent, SpanBeginEvent, SpanEndEvent, ToolEvent
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalPlan,
    EvalPlanStep,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    condense_sample,
    write_eval_log,
)
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.scorer import Score
from inspect_ai.tool import ToolCall as InspectToolCall

from agents.types import Message, ToolCall
from envs.errors import ConfigError
from experiments import stats
from experiments.export.invocations import invocations, tool_runs
from experiments.export.output import whole_file
from experiments.export.selection import Selection
from experiments.runs import Run
from graphs.turns import Episode, Turn

SCORER = "verdict"
MAX_MB = 50.0
_LETTERS = {"correct": "C", "incorrect": "I", "unparsed": "N"}
_STOPS: dict[str, StopReason] = {"stop": "stop", "length": "max_tokens"}
Usage = dict[str, ModelUsage]


def export_inspect(selection: Selection, path: Path, max_mb: float = MAX_MB, force: bool = False) -> None:
    """Write the selected episodes as a log.

    Args:
        selection: what is written; told what was left out.
        path: its name must end in `.eval`, or Inspect would not know it.
        max_mb: most megabytes of prompts and replies; whole episodes beyond are left out.
        force: replace a file that is there.

    Raises:
        ConfigError: the file is there already and `force` is not set, or its name ends otherwise.
    """
    if path.suffix != ".eval":
        raise ConfigError(f"{path}: expected a name that ends in .eval, which Inspect knows its logs by")
    samples: list[EvalSample] = []
    scores: dict[str, list[float]] = {}
    size = 0
    with whole_file(path, force) as file:
        for position, episode in selection:
            size += _size(episode)
            if size > max_mb * 1e6:
                selection.end_before(position, f"the log would hold more than {max_mb:g} MB")
                selection.exported -= 1
                break
            samples.append(condense_sample(_sample(selection, position, episode)))
            if episode.verdict is not None and episode.verdict.score is not None:
                scores.setdefault(episode.task.id, []).append(episode.verdict.score)
        run = selection.run
        topology = run.config["topology"]
        log = EvalLog(
            status="success",
            eval=_spec(selection, samples),
            plan=EvalPlan(steps=[EvalPlanStep(solver=topology["name"], params=topology["settings"])]),
            results=_results(samples, scores),
            stats=EvalStats(started_at=selection.began.isoformat(), completed_at=_ended(run, selection.began)),
            samples=samples,
        )
        log.stats.model_usage = _total(sample.model_usage for sample in samples)
        log.stats.role_usage = _total(sample.role_usage for sample in samples)
        write_eval_log(log, file, format="eval")


def _spec(selection: Selection, samples: list[EvalSample]) -> EvalSpec:
    run = selection.run
    config = run.config
    left_out = selection.left_out()
    return EvalSpec(
        eval_id=run.name,
        run_id=run.name,
        task_id=run.name,
        created=selection.began.isoformat(),
        task=f"{config['topology']['name']} on {config['env']['name']}",
        solver=config["topology"]["name"],
        solver_args=config["topology"]["settings"],
        dataset=EvalDataset(
            name=config["env"]["name"],
            samples=len({sample.id for sample in samples}),
            sample_ids=list(dict.fromkeys(str(sample.id) for sample in samples)),
        ),
        model=", ".join(sorted({seat["model"] for seat in config["cast"].values()})),
        config=EvalConfig(epochs=max((sample.epoch for sample in samples), default=1)),
        packages=config.get("versions", {}),
        metadata={"palaestra": config, **({"left_out": left_out} if left_out else {})},
    )


def _results(samples: list[EvalSample], scores: dict[str, list[float]]) -> EvalResults:
    accuracy, interval = stats.mean_score(scores), stats.mean_interval(scores)
    scored = sum(map(len, scores.values()))
    metrics = {}
    if accuracy is not None:
        metrics["accuracy"] = EvalMetric(name="accuracy", value=accuracy, metadata={"interval_95": interval})
    score = EvalScore(
        name=SCORER, scorer=SCORER, scored_samples=scored, unscored_samples=len(samples) - scored, metrics=metrics
    )
    ended = sum(sample.error is None for sample in samples)
    return EvalResults(total_samples=len(samples), completed_samples=ended, scores=[score])


def _sample(selection: Selection, position: int, episode: Episode) -> EvalSample:
    task, began = episode.task, selection.began
    chats = _chats(episode)
    error = None
    if episode.failure is not None:
        error = EvalError(message=episode.failure, traceback=episode.failure, traceback_ansi=episode.failure)
    return EvalSample(
        id=task.id,
        epoch=episode.sample + 1,
        uuid=f"{selection.run.name}/{position}",
        input=task.question,
        target=list(task.answers),
        metadata={"position": position, "details": task.details, "stop_reason": episode.stop_reason},
        messages=chats[episode.turns[-1].id] if episode.turns else [],
        output=_output(episode.turns[-1]) if episode.turns else ModelOutput(),
        scores=_scores(episode),
        error=error,
        events=list(_events(selection, position, episode, chats)),
        model_usage=_total({turn.policy: _usage(turn)} for turn in episode.turns),
        role_usage=_total({turn.role: _usage(turn)} for turn in episode.turns),
        started_at=began.isoformat(),
        completed_at=_after(began, episode.seconds).isoformat(),
        total_time=episode.seconds,
        working_time=episode.seconds,
    )


def _events(
    selection: Selection, position: int, episode: Episode, chats: dict[str, list[ChatMessage]]
) -> Iterator[Event]:
    began = selection.began

    def at(seconds: float, name: str, span: str | None = None) -> dict[str, Any]:
        uuid = f"{selection.run.name}/{position}/{name}"
        return {"uuid": uuid, "span_id": span, "timestamp": _after(began, seconds), "working_start": seconds}

    for turns in invocations(episode.turns):
        first, last = turns[0], turns[-1]
        span = f"{position}/{first.id}"
        opens = at(first.asked_s, f"begin {first.id}", span)
        yield SpanBeginEvent(id=span, name=first.role, type="agent", **opens)
        ran = list(tool_runs(turns))
        for turn in turns:
            yield _model_event(selection, turn, chats[turn.id][:-1], at(turn.asked_s, turn.id, span))
            for _, call, output, later in (run for run in ran if run[0] is turn):
                yield _tool_event(call, output, later.asked_s - turn.answered_s, at(turn.answered_s, call.id, span))
        yield SpanEndEvent(id=span, **at(last.answered_s, f"end {first.id}", span))
    for number, note in enumerate(episode.notes):
        yield InfoEvent(source="topology", data=note, **at(episode.seconds, f"note {number}"))
    for score in (_scores(episode) or {}).values():
        target = list(episode.task.answers)
        yield ScoreEvent(score=score, target=target, scorer=SCORER, **at(episode.seconds, "score"))


def _model_event(selection: Selection, turn: Turn, asked: list[ChatMessage], place: dict[str, Any]) -> ModelEvent:
    kept = ("id", "move", "round", "reads", "follows", "version", "queue_s", "compute_s", "token_ids", "logprobs")
    about = {name: getattr(turn, name) for name in kept}
    if turn.failure is not None:
        about["failure"] = f"expected {turn.failure.expected}"
    return ModelEvent(
        model=selection.model(turn.role) or turn.policy,
        role=turn.role,
        input=asked,
        tools=[],
        tool_choice="auto",
        config=GenerateConfig(temperature=turn.temperature, top_p=turn.top_p, seed=turn.seed),
        output=_output(turn),
        completed=_after(place["timestamp"], turn.answered_s - turn.asked_s),
        working_time=turn.compute_s,
        metadata=about,
        **place,
    )


def _tool_event(call: ToolCall, output: Message, seconds: float, place: dict[str, Any]) -> ToolEvent:
    return ToolEvent(
        id=call.id,
        function=call.name,
        arguments=_arguments(call),
        result=output.content,
        completed=_after(place["timestamp"], seconds),
        working_time=seconds,
        **place,
    )


def _output(turn: Turn) -> ModelOutput:
    stop: StopReason = "tool_calls" if turn.tool_calls else _STOPS.get(turn.finish, "unknown")
    return ModelOutput(
        model=turn.policy,
        choices=[ChatCompletionChoice(message=_reply(turn), stop_reason=stop)],
        usage=_usage(turn),
        time=turn.answered_s - turn.asked_s,
    )


def _scores(episode: Episode) -> dict[str, Score] | None:
    verdict = episode.verdict
    if verdict is None:
        return None
    about = {"status": verdict.status, "stop_reason": episode.stop_reason}
    said = {"answer": episode.answer, "explanation": verdict.reason or None, "metadata": about}
    if verdict.status not in _LETTERS:
        return {SCORER: Score.unscored(reason=verdict.status, **said)}
    return {SCORER: Score(value=_LETTERS[verdict.status], **said)}


def _chats(episode: Episode) -> dict[str, list[ChatMessage]]:
    """Turn id -> all messages of the conversation that it ends. A message is the same object, and has one id,
    wherever it is part of a conversation: Inspect stores it once."""
    chats: dict[str, list[ChatMessage]] = {}
    for turn in episode.turns:
        asked = [_message(message, f"{turn.id}#{i}") for i, message in enumerate(turn.messages)]
        chats[turn.id] = [*chats.get(turn.follows or "", ()), *asked, _reply(turn)]
    return chats


def _reply(turn: Turn) -> ChatMessageAssistant:
    return ChatMessageAssistant(
        id=turn.id, content=turn.reply, tool_calls=_calls(turn.tool_calls), model=turn.policy, source="generate"
    )


def _message(message: Message, id: str) -> ChatMessage:
    match message.role:
        case "system":
            return ChatMessageSystem(id=id, content=message.content)
        case "assistant":
            return ChatMessageAssistant(id=id, content=message.content, tool_calls=_calls(message.tool_calls))
        case "tool":
            return ChatMessageTool(id=id, content=message.content, tool_call_id=message.tool_call_id)
        case _:
            return ChatMessageUser(id=id, content=message.content)


def _calls(calls: tuple[ToolCall, ...]) -> list[InspectToolCall] | None:
    return [InspectToolCall(id=call.id, function=call.name, arguments=_arguments(call)) for call in calls] or None


def _arguments(call: ToolCall) -> dict[str, Any]:
    """As an object; what is none, as text."""
    try:
        found = json.loads(call.arguments)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"arguments": call.arguments}


def _usage(turn: Turn) -> ModelUsage:
    prompt, completion = turn.prompt_tokens, turn.completion_tokens
    return ModelUsage(input_tokens=prompt, output_tokens=completion, total_tokens=prompt + completion)


def _total(usages: Any) -> Usage:
    total: Usage = defaultdict(ModelUsage)
    for usage in usages:
        for name, used in usage.items():
            total[name] += used
    return dict(total)


def _size(episode: Episode) -> int:
    """About the bytes of its texts."""
    asked = sum(len(message.content) for turn in episode.turns for message in turn.messages)
    return asked + sum(len(turn.reply) + 24 * len(turn.token_ids) for turn in episode.turns)


def _after(began: datetime, seconds: float) -> datetime:
    return began + timedelta(seconds=seconds)


def _ended(run: Run, began: datetime) -> str:
    seconds = run.seconds
    return "" if seconds is None else _after(began, seconds).isoformat()
