"""Runs and episodes in the terminal: the summary table, the comparison table, an episode as a transcript.

Model text is data: it is printed as plain text, never as markup, and its control characters are made visible.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from agents.results import Conclusion, Critique, Judgement, Moderation, Sabotage, ToolUse
from agents.types import ToolCall
from envs.errors import ConfigError
from envs.grading import same_number, same_text
from envs.types import Task
from experiments.compare import Row
from experiments.lanes import draw_lanes
from experiments.narrate import narrate
from experiments.runs import Run, Summary
from experiments.stats import Comparison
from graphs.turns import Episode, Turn

_COLOURS = ("cyan", "magenta", "yellow", "blue", "green", "red", "bright_cyan", "bright_magenta")
_STATUS = {"correct": "bold green", "incorrect": "bold red", "unparsed": "bold yellow", "unscorable": "bold yellow"}
MOST = 5
"""Different answers of turns that are shown as one entry."""
_VERBS = {
    "solve": "solves",
    "revise": "revises",
    "oppose": "opposes",
    "rebut": "answers back",
    "restate": "restates",
    "moderate": "moderates",
    "list_candidates": "lists the candidates",
    "conclude": "decides",
    "critique": "checks a step",
    "judge": "judges",
    "sabotage": "sabotages a step",
    "propose": "proposes a problem",
}


def console(stderr: bool = False) -> Console:
    """A console as wide as the terminal; wide enough for our tables where there is none."""
    plain = Console(stderr=stderr)
    return plain if plain.is_terminal else Console(stderr=stderr, width=120)


def save_svg(rendered: RenderableType, path: Path, title: str) -> None:
    """Write what `show` prints as a picture that loads nothing from elsewhere.

    Raises:
        ConfigError: the file cannot be written.
    """
    recorder = Console(record=True, width=100, file=StringIO(), force_terminal=True)
    recorder.print(rendered)
    without_web_fonts = re.sub(r"@font-face \{.*?\}\s*", "", recorder.export_svg(title=title), flags=re.DOTALL)
    try:
        path.write_text(without_web_fonts, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def printable(text: str) -> str:
    """Text without control characters: escape sequences of a model must not reach the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", lambda c: f"\\x{ord(c[0]):02x}", text)


def plain(text: str) -> Text:
    """Text for a table: rich would read markup in a bare str."""
    return Text(printable(text))


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:z.{digits}f}"


def interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"[{percent(bounds[0])}, {percent(bounds[1])}]"


def difference(versus: Comparison) -> str:
    """With its interval, in percentage points: +3.0 [1.2, 4.8]."""
    sign = "+" if versus.difference >= 0 else "−"
    return f"{sign}{percent(abs(versus.difference))} {interval(versus.interval)}"


def render_summary(summary: Summary) -> RenderableType:
    title = Text(f"run {printable(summary.run)}", style="table.title")
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    lost = [f"{n} {what}" for what in ("failed", "unscorable", "unparsed") if (n := getattr(summary, what))]
    reasons = ", ".join(f"{reason} ×{n}" for reason, n in summary.stop_reasons.items())
    table.add_row("topology", plain(f"{summary.topology} on {summary.env}, {summary.model}"))
    table.add_row("accuracy", f"{percent(summary.accuracy)} %  {interval(summary.ci95)} 95 % interval")
    table.add_row("episodes", f"{summary.episodes}" + (f"  ({', '.join(lost)})" if lost else ""))
    table.add_row("outcomes", plain(reasons))
    table.add_row(
        "calls",
        f"{summary.calls}" + (f"  ({summary.unread_replies} replies not readable)" * bool(summary.unread_replies)),
    )
    table.add_row("tokens", f"{summary.tokens.prompt:,} prompt, {summary.tokens.completion:,} completion")
    if summary.seconds:
        rate = summary.tokens.completion / summary.seconds
        table.add_row("time", f"{summary.seconds:.1f} s, {rate:,.0f} completion tokens/s")
    table.add_row("digest", summary.digest[:16])
    return table


def render_comparison(rows: Sequence[Row]) -> RenderableType:
    baseline = rows[0]
    table = Table(title=Text(f"compared with {baseline.run}", style="table.title"), title_justify="left")
    table.add_column("run", no_wrap=True)
    equal = any(row.samples for row in rows)
    against = "against k samples" if equal else "difference"
    for heading in ("accuracy %", "calls", "tokens", *(["k"] if equal else []), against, "better : worse", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        versus = row.comparison
        cells = ["", "", ""]
        if versus is not None:
            cells = [
                difference(versus),
                f"{versus.wins} : {versus.losses}",
                f"{versus.p:.3f}" if versus.p >= 0.001 else "<0.001",
            ]
        accuracy = f"{percent(row.accuracy)} {interval(row.ci95)}"
        cost = f"{row.calls_per_episode:.1f}", f"{row.tokens_per_episode:,.0f}"
        samples = [str(row.samples or "")] if equal else []
        table.add_row(plain(row.run), accuracy, *cost, *samples, *cells)
    tests = sorted({row.comparison.test for row in rows if row.comparison})
    tasks = sorted({row.comparison.tasks for row in rows if row.comparison})
    note = (
        f"Paired over {' / '.join(map(str, tasks))} tasks; 95 % intervals; p: {' / '.join(tests)}. "
        "Calls and tokens (prompt and completion) are per episode: compare like with like."
    )
    return Group(table, Text(note, style="dim"))


def render_episode(run: Run, episode: Episode, prompts: bool = False, every: bool = False) -> RenderableType:
    """An episode as a transcript: the problem, the turns round by round, what was noted of them, the outcome.

    Args:
        run: that it is of.
        episode: what is shown.
        prompts: show each turn's prompt too.
        every: show every turn by itself; else three and more that were asked the same together are one entry, as far as
            nobody read them.
    """
    task = episode.task
    roles = dict.fromkeys(turn.role for turn in episode.turns)
    colours = {role: _COLOURS[i % len(_COLOURS)] for i, role in enumerate(roles)}
    parts: list[RenderableType] = [
        Text(
            printable(f"{run.name} · {task.id}") + (f" · sample {episode.sample}" if episode.sample else ""),
            style="dim",
        ),
        Panel(
            Text(printable(task.question), style="bold"),
            title="Problem",
            subtitle=plain(f"answer: {' or '.join(task.answers)}"),
            title_align="left",
            subtitle_align="right",
        ),
    ]
    # The turns of a foreign graph have no rounds that its author would know: they are drawn as the graph they form.
    foreign = any(turn.move == "chat" for turn in episode.turns)
    if foreign:
        parts += [Text(), Rule("Who read whom", align="left", style="dim"), Text(), *_graph(episode, colours), Text()]
        parts += [Rule("Turns", align="left", style="dim")]
    shown_round: int | None = None
    entries = [[turn] for turn in episode.turns] if every or foreign else asked_alike(episode.turns)
    for entry in entries:
        turn = entry[0]
        if turn.round != shown_round and not foreign:
            shown_round = turn.round
            parts += [
                Text(),
                Rule(f"Round {turn.round}" if turn.round else "Before the debate", align="left", style="dim"),
            ]
        said = _reply(turn) if len(entry) == 1 else _opening(turn)
        parts += [Text(), _heading(entry, task, colours), *([_prompt(turn)] if prompts else []), said]
    if len(entries) < len(episode.turns):
        told = f"{len(episode.turns)} turns; those that were asked the same are one entry, and --all shows each"
        parts += [Text(), Text(told, style="dim")]
    if lines := narrate(episode):
        parts += [Text(), Rule("In plain words", align="left", style="dim"), plain("\n".join(lines))]
    return Group(*parts, Text(), Rule("Outcome", align="left", style="dim"), _outcome(episode))


def asked_alike(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Turns as entries of a transcript: three and more that were asked together, with one prompt and one beginning of
    the reply, are one, at the place of the first. A turn that is read or gone on from has an entry of its own."""
    used = {id for turn in turns for id in (*turn.reads, turn.follows)}
    alike: dict[Hashable, list[Turn]] = {}
    for turn in turns:
        same = (turn.after, turn.role, turn.round, turn.move, turn.follows, turn.messages, turn.opening, turn.reads)
        alike.setdefault(turn.id if turn.id in used else same, []).append(turn)
    together = {entry[0].id: entry for entry in alike.values() if len(entry) >= 3}
    folded = {turn.id for entry in together.values() for turn in entry}
    return [together.get(turn.id, [turn]) for turn in turns if turn.id in together or turn.id not in folded]


def _heading(entry: Sequence[Turn], task: Task, colours: dict[str, str]) -> Text:
    turn, heading = entry[0], Text("● ", style=colours[entry[0].role])
    if turn.move == "chat":
        heading.append(turn.id, style=f"bold {colours[turn.role]}").append(f"  {_links(turn)}", style="dim")
        return heading.append("   ").append_text(_result(turn, task))
    heading.append(turn.role, style=f"bold {colours[turn.role]}")
    heading.append(f"  {_VERBS.get(turn.move, turn.move)}", style="italic")
    readers = dict.fromkeys(id.rpartition("/")[0] for id in turn.reads)
    if readers:
        heading.append("  reading ", style="dim")
        for i, role in enumerate(readers):
            heading.append(f"{', ' if i else ''}{role}", style=colours.get(role, "white"))
    if len(entry) > 1:
        return heading.append(f"  {len(entry)} times", style="bold").append("   ").append_text(_tally(entry, task))
    return heading.append("   ").append_text(_result(turn, task))


def _tally(entry: Sequence[Turn], task: Task) -> Text:
    """What the replies came to, and how often each: the most frequent ones."""
    results = {turn.id: _result(turn, task) or Text("→ no answer", style="dim") for turn in entry}
    first = {result.plain: result for result in reversed(results.values())}
    counts = Counter(result.plain for result in results.values()).most_common()
    shown = [first[said].append(f" ×{count}", style="default") for said, count in counts[:MOST]]
    if rest := sum(count for _, count in counts[MOST:]):
        shown.append(Text(f"and {rest} others", style="dim"))
    return Text("  ").join(shown)


def _opening(turn: Turn) -> RenderableType:
    """What the given beginning of a reply ends with."""
    last = turn.opening.rstrip().rpartition("\n")[2]
    text = Text("from behind ", style="dim").append(printable(last), style="not dim") if last else Text()
    return Padding(text, (0, 0, 0, 4), expand=False)


def _links(turn: Turn) -> str:
    follows = [f"goes on from {turn.follows}"] if turn.follows else []
    return ", ".join([*follows, *([f"reads {', '.join(turn.reads)}"] if turn.reads else [])])


def _graph(episode: Episode, colours: dict[str, str]) -> list[RenderableType]:
    """One line a turn; beside the lanes who it is and how its reply begins, else whom it reads."""
    lanes = draw_lanes(episode.turns)
    wide = max(len(turn.id) for turn in episode.turns)
    lines: list[RenderableType] = []
    for i, turn in enumerate(episode.turns):
        line = Text(f"{lanes[i]}  " if lanes else "● ", style="dim", no_wrap=True, overflow="ellipsis")
        line.append(turn.id.ljust(wide), style=f"not dim bold {colours[turn.role]}")
        said = [turn.reply.strip(), *(_call(call) for call in turn.tool_calls)]
        words = " ".join(" ".join(said).split()) if lanes else _links(turn)
        lines.append(line.append(f"  {printable(words)}", style="not dim"))
    return lines


def _call(call: ToolCall) -> str:
    return f"⚒ {call.name} {call.arguments}"


def _result(turn: Turn, task: Task) -> Text:
    """What the reply came to, in a few words."""
    result = turn.result
    if turn.failure is not None:
        return Text(f"not readable: expected {turn.failure.expected}", style="bold yellow")
    if isinstance(result, Moderation) and not result.ends_debate:
        return Text("→ no preference, the debate goes on", style="dim")
    if isinstance(result, Critique):
        return Text(f"→ the step is {'correct' if result.correct else 'incorrect'}")
    if isinstance(result, Judgement):
        return Text(f"→ {result.choice}")
    if isinstance(result, Sabotage):
        return Text(printable(f"→ {result.kind}: {result.step}"))
    if isinstance(result, ToolUse) and result.code:
        return Text("→ runs code")
    if turn.answer is None:
        return Text()
    right = is_right(task, turn.answer)
    side = f"for the {result.side}: " if isinstance(result, Moderation) and result.side else ""
    text = Text(f"→ {side}{printable(turn.answer)}")
    return text.append(" ✓" if right else " ✗", style="bold green" if right else "bold red")


def is_right(task: Task, answer: str) -> bool:
    """Whether an answer is one of the task's by text or as a plain number: a mark for the reader, not a verdict."""
    return any(same_text(accepted, answer) or bool(same_number(accepted, answer)) for accepted in task.answers)


def _reply(turn: Turn) -> RenderableType:
    text = turn.reply
    if isinstance(turn.result, (Moderation, Conclusion)) and turn.result.reason:
        text = turn.result.reason.replace("; ", "\n")
    calls = [_call(call) for call in turn.tool_calls]
    results = [f"⚒ → {message.content}" for message in turn.messages if message.role == "tool"]
    before, after = (Text(printable("\n".join(lines)), style="dim") for lines in (results, calls))
    said = Text(printable(text.strip()) or "(empty)" * (not calls))
    shown = Text("\n").join(part for part in (before, said, after) if part)
    return Padding(shown, (0, 0, 0, 4), expand=False)


def _prompt(turn: Turn) -> RenderableType:
    text = Text(style="dim")
    for message in turn.messages:
        text.append(f"{message.role}: ", style="bold").append(printable(message.content).rstrip() + "\n")
    return Padding(
        Panel(text, title=f"prompt, {turn.prompt_tokens} tokens", title_align="left"), (0, 0, 0, 4), expand=False
    )


def _outcome(episode: Episode) -> RenderableType:
    text = Text()
    if episode.failure is not None:
        text.append("failed", style="bold red").append(f": {printable(episode.failure)}")
    elif episode.verdict is not None:
        answer = printable(episode.answer) if episode.answer else "no answer"
        text.append(f"{printable(episode.stop_reason)} → {answer}  ")
        text.append(episode.verdict.status, style=_STATUS[episode.verdict.status])
        if episode.verdict.reason:
            text.append(f" ({printable(episode.verdict.reason)})", style="dim")
    used = sum(turn.prompt_tokens + turn.completion_tokens for turn in episode.turns)
    text.append(f"\n{episode.calls} calls, {used:,} tokens, {episode.seconds:.2f} s", style="dim")
    return text


def plain_list(title: str, rows: Sequence[tuple[str, Any]]) -> RenderableType:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows:
        table.add_row(plain(name), plain(str(value)))
    return table
