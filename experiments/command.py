"""The command `palaestra`: its verbs, their options and their exit statuses.

Exit status: 0 done; 1 ran, but something failed; 2 unusable arguments; 130 interrupted; 143 stopped by SIGTERM.
`--json` prints one object on stdout; progress, logs and complaints go to stderr.
"""

import json
import logging
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from envs.errors import ConfigError
from experiments.capacity.command import plan
from experiments.export.command import export, import_
from experiments.interrupts import stopping_on_sigterm
from experiments.options import JSON, RUNS, complain, example, plays, plays_several, print_result, read_settings
from experiments.training.command import print_training, tell, train
from experiments.viewer.command import fork, view


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="palaestra: %(message)s", stream=sys.stderr)
    stopped: list[int] = []
    try:
        with stopping_on_sigterm(stopped):
            return palaestra.main(arguments, prog_name="palaestra", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt) as error:
        complain(
            _with_notes(
                f"{'stopped' if stopped else 'interrupted'}; what had ended is stored", error.__cause__ or error
            )
        )
        return 128 + (stopped[0] if stopped else signal.SIGINT)
    except BaseExceptionGroup as group:
        return _report(_first(group))
    except Exception as error:  # noqa: BLE001 - decided by type just below
        return _report(error)


def _report(error: BaseException) -> int:
    from agents.types import EngineError

    if isinstance(error, (ConfigError, EngineError)):
        complain(_with_notes(str(error), error))
        return 2 if isinstance(error, ConfigError) else 1
    if isinstance(error, OSError):
        complain(_with_notes(f"{type(error).__name__}: {error}", error))
        return 1
    raise error


def _with_notes(said: str, error: BaseException) -> str:
    """With what the error was told on its way, such as how a run goes on."""
    return "; ".join([said, *getattr(error, "__notes__", ())])


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="palaestra")
def palaestra() -> None:
    """Language-model agents debate, criticise and play against one another."""


for _verb in (train, plan, view, fork, export, import_):
    palaestra.add_command(_verb)


@palaestra.command(
    epilog=example("palaestra run society --env arithmetic --tasks 40 --seed 7 --set env.level=4 --set rounds=3")
)
@click.argument("topology")
@plays
@RUNS
@JSON
@click.pass_context
def run(context: click.Context, as_json: bool, root: Path, **options: Any) -> None:
    """Play TOPOLOGY over tasks, store every episode, and print the summary.

    TOPOLOGY is a name from `palaestra list`, or module:function of your own.
    """
    from experiments.runner import run as start

    context.exit(_print_run(start(cast=options.pop("model"), root=root, **options), as_json))


def _print_run(played: Any, as_json: bool) -> int:
    """Print what came of a run. Returns the exit status."""
    from experiments.show import render_summary

    summary = played.summary()
    print_result(render_summary(summary), summary.model_dump, as_json)
    if summary.failed:
        first = played.find("failed")
        complain(
            f"{summary.failed} of {summary.episodes} episodes failed; the first, {first.task.id}: {first.failure}; "
            f"palaestra show {played.name} failed shows it, palaestra resume --failed {played.name} asks them again"
        )
    return 1 if summary.failed else 0


@palaestra.command(
    epilog=example("palaestra sweep solo vote society,agents=3 mine:debate --env arithmetic --tasks 200 --seed 7")
)
@click.argument("topologies", nargs=-1, required=True)
@plays_several
@RUNS
@JSON
@click.pass_context
def sweep(context: click.Context, as_json: bool, root: Path, **options: Any) -> None:
    """Play TOPOLOGIES with every setting, model and seed over the same tasks, and compare them in one table.

    A topology's own settings follow it after commas: society,agents=3,rounds=2; --grid plays all values of one. Each
    run is stored in the sweep's folder, with the table (sweep.json) and cost against accuracy (sweep.png).
    Self-consistency is played beside, with as many calls and tokens as each of them takes.
    """
    from experiments.sweeps import sweep as start

    context.exit(_print_sweep(start(root=root, **options), as_json))


def _print_sweep(played: Any, as_json: bool) -> int:
    """Print a sweep's table. Returns the exit status."""
    from experiments.show_sweep import render_sweep

    table = played.table
    print_result(
        render_sweep(table, str(played.path)),
        lambda: {"sweep": played.path.name, **table.model_dump(mode="json")},
        as_json,
    )
    failed = sum(entry.failed for entry in table.entries)
    if failed:
        complain(
            f"{failed} episodes failed; `palaestra show {played.path.name}/RUN failed` shows one, "
            f"`palaestra resume --failed {played.path.name}` asks them again"
        )
    return 1 if failed else 0


@palaestra.command(epilog=example("palaestra resume first"))
@click.argument("run")
@click.option("--failed", is_flag=True, help="Ask the episodes that failed again, too. Their failures are kept beside.")
@click.option("--address", help="A Ray cluster, in place of the one that the run began on.")
@RUNS
@JSON
@click.pass_context
def resume(context: click.Context, run: str, failed: bool, address: str | None, root: Path, as_json: bool) -> None:
    """Finish a RUN, a sweep or a training that was killed or stopped: it ends as if it never had been.

    What is stored is not played again; what is finished is printed.
    """
    from experiments.resuming import resume as go_on
    from experiments.runs import Run
    from experiments.sweeps import Sweep

    finished = go_on(run, root, address=address, failed=failed, told=tell)
    if isinstance(finished, Run):
        context.exit(_print_run(finished, as_json))
    if isinstance(finished, Sweep):
        context.exit(_print_sweep(finished, as_json))
    print_training(finished, as_json)


@palaestra.command(epilog=example("palaestra serve --env arithmetic --tasks 20 --roles solver,critic --name served"))
@plays
@click.option("--roles", default="solver", show_default=True, help="The roles that may be asked, with commas between.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; beyond loopback with a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--token-env", help="Environment variable that holds the token which clients must show as api_key.")
@click.option(
    "--idle",
    "idle_s",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds without a call after which an episode has failed.",
)
@RUNS
@JSON
@click.pass_context
def serve(context: click.Context, as_json: bool, root: Path, **options: Any) -> None:
    """Serve roles over OpenAI's chat completions, and tasks to play with them, until stopped.

    POST /episodes hands out a task with a base_url; the calls made there are recorded as an episode of the run, which
    POST /episodes/ID/answer ends. SIGTERM ends with status 0, or 1 if an episode failed; Ctrl-C with 130. With --json
    the object says where the server is, and is printed once it is up.
    """
    from experiments.gateway.serve import serve_run
    from experiments.runs import Run
    from experiments.show import render_summary

    def announce(up: dict[str, Any], made: str | None) -> None:
        if made is not None:
            click.echo(f"palaestra: clients must show this token as api_key: {made}", err=True)
        click.echo(json.dumps(up) if as_json else f"serving {', '.join(up['roles'])} at {up['base_url']}")

    directory, interrupted = serve_run(root=root, announce=announce, **options)
    failed = 0
    if directory.is_dir():
        summary = Run(directory).summary()
        failed = summary.failed
        if not as_json:
            print_result(render_summary(summary), summary.model_dump, False)
    if interrupted:
        raise KeyboardInterrupt
    context.exit(1 if failed else 0)


@palaestra.command(epilog=example("palaestra mcp --set sandbox=bubblewrap --set seconds=2"))
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=read_settings,
    metavar="KEY=VALUE",
    help="sandbox (monty or bubblewrap), seconds, memory_mb, output_chars (of each program), workers (programs at "
    "once). May be repeated.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Serve HTTP on loopback instead; 0 takes a free port.")
@click.option("--json", "as_json", is_flag=True, help="With --port: print where the server is as one JSON object.")
def mcp(settings: dict[str, str], port: int | None, as_json: bool) -> None:
    """Offer a tool that runs Python in a sandbox, over the Model Context Protocol, on stdin and stdout.

    For the hosts of other agents: the command to configure there is `palaestra mcp`. It ends when its stdin does.
    """
    if as_json and port is None:
        raise ConfigError("--json goes with --port: stdout is the protocol's otherwise")
    try:
        from experiments.mcp_server import serve_tool
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise ConfigError(f"palaestra mcp needs {error.name}: pip install 'palaestra[mcp]'") from None

    def announce(url: str) -> None:
        click.echo(json.dumps({"url": url}) if as_json else f"serving the tool python at {url}")

    if serve_tool(settings, port, announce):
        raise KeyboardInterrupt


@palaestra.command(epilog=example("palaestra show demo-mad longest"))
@click.argument("run")
@click.argument("episode", required=False)
@click.option("--prompts", is_flag=True, help="Show each turn's prompt too.")
@click.option("--all", "every", is_flag=True, help="Show every turn, also where several were asked the same.")
@click.option("--svg", type=click.Path(path_type=Path), help="Write it as a picture to this file, too.")
@RUNS
@JSON
def show(
    run: str, episode: str | None, prompts: bool, every: bool, svg: Path | None, root: Path, as_json: bool
) -> None:
    """Print the summary of RUN (of a sweep its table, of a training its curve), or one EPISODE of it as a transcript.

    EPISODE is its number (from 1), a task's id, TASK/SAMPLE, or one of: longest, wrong, failed.
    """
    from experiments.runs import SWEEP, TRAINING, Run
    from experiments.show import render_episode, render_summary, save_svg

    if episode is None and (root / run / SWEEP).is_file():
        from experiments.show_sweep import render_sweep
        from experiments.sweeps import Sweep

        table = Sweep(root / run).table
        rendered, data = render_sweep(table, run), lambda: table.model_dump(mode="json")
    elif episode is None and (root / run / TRAINING).is_file():
        from experiments.training.show import render_training
        from experiments.training.training import Training

        training = Training(root / run)
        rendered, data = render_training(training), lambda: {"training": run, "metrics": training.lines()}
    elif episode is None:
        summary = Run.open(run, root).summary()
        rendered, data = render_summary(summary), summary.model_dump
    else:
        opened = Run.open(run, root)
        found = opened.find(episode)
        rendered, data = render_episode(opened, found, prompts, every), lambda: found.model_dump(mode="json")
    if svg is not None:
        save_svg(rendered, svg, f"palaestra show {run} {episode or ''}".strip())
    print_result(rendered, data, as_json)


@palaestra.command(epilog=example("palaestra compare --equal calls demo-vote demo-society demo-mad"))
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--equal",
    type=click.Choice(["calls", "tokens"]),
    help="Compare with self-consistency at as many calls or tokens: that of the first run, which is of vote.",
)
@RUNS
@JSON
def compare(runs: tuple[str, ...], equal: Any, root: Path, as_json: bool) -> None:
    """Compare RUNS with the first of them, paired by task, with intervals, calls and tokens.

    Training runs are compared before and after: what each gained on held-out tasks, and runs that differ in their seed
    alone together.
    """
    import asyncio

    from experiments.compare import compare_at_equal, compare_runs
    from experiments.plan import reopen_env
    from experiments.runs import TRAINING, Run
    from experiments.show import render_comparison

    if all((root / name / TRAINING).is_file() for name in runs):
        from experiments.training.report import report
        from experiments.training.show import render_report

        found = report(runs, root)
        print_result(render_report(found), lambda: [asdict(row) for row in found], as_json)
        return
    opened = [Run.open(name, root) for name in runs]
    if equal is None:
        rows = compare_runs(opened)
    else:
        rows = asyncio.run(compare_at_equal(opened, equal, reopen_env(opened[0].config)))
    print_result(
        render_comparison(rows),
        lambda: {"baseline": rows[0].run, "runs": [asdict(row) for row in rows]},
        as_json,
    )


@palaestra.command("list", epilog=example("palaestra list --json"))
@RUNS
@JSON
def list_(root: Path, as_json: bool) -> None:
    """List envs, topologies, recipes, models and runs."""
    from rich.console import Group

    from experiments.catalogue import catalogue
    from experiments.show import plain_list

    found = catalogue(root)
    rendered = Group(
        *(plain_list(f"\n{title}", list(rows.items()) or [("(none)", "")]) for title, rows in found.items())
    )
    print_result(rendered, lambda: found, as_json)


@palaestra.command(epilog=example("palaestra doctor --model embedded --set pool.replicas=2"))
@click.option("--model", help="Open this model's pool too, ask it a little, and say what it can do here.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=read_settings,
    metavar="KEY=VALUE",
    help="A setting of the model's engine or pool: engine.device=cuda, vllm.tensor_parallel=2, pool.replicas=2.",
)
@JSON
@click.pass_context
def doctor(context: click.Context, model: str | None, settings: dict[str, str], as_json: bool) -> None:
    """Look at this machine: versions, GPUs, Ray, the embedded model, import names; and say what mends what is wrong."""
    from rich.table import Table
    from rich.text import Text

    from experiments.doctor import examine, healthy

    if settings and model is None:
        raise ConfigError("--set goes with --model: the machine has no settings")
    findings = examine()
    if model is not None:
        import asyncio

        from experiments.checkup import examine_model

        findings += asyncio.run(examine_model(model, settings))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    styles = {"ok": "green", "note": "yellow", "missing": "bold red", "broken": "bold red"}
    for finding in findings:
        mend = f"\nmend: {finding.mend}" if finding.mend else ""
        table.add_row(Text(finding.state, style=styles[finding.state]), finding.what, Text(finding.detail + mend))
    print_result(table, lambda: {"healthy": healthy(findings), "findings": [asdict(f) for f in findings]}, as_json)
    context.exit(0 if healthy(findings) else 1)
