"""The verbs `view` and `fork`. Imports nothing heavy."""

import json
from pathlib import Path
from typing import Any

import click

from experiments.options import JSON, RUNS, example, print_result, read_settings

PORT = 7600


@click.command(epilog=example("palaestra view demo-mad --port 7600"))
@click.argument("run", required=False)
@RUNS
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; beyond loopback with a token.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"0 takes a free one; left out, {PORT}, or a free one where that is taken.",
)
@click.option("--token-env", help="Environment variable that holds the token which browsers must show.")
@click.option("--no-browser", is_flag=True, help="Open no browser, only say where the viewer is.")
@JSON
def view(
    run: str | None, root: Path, host: str, port: int | None, token_env: str | None, no_browser: bool, as_json: bool
) -> None:
    """Look at runs in the browser: outcomes, debates as graphs, training curves, comparisons; until stopped.

    RUN opens that one; of a sweep or a training, NAME/RUN. Nothing leaves this machine, and nothing is written but what
    a fork plays. Beyond loopback the address holds a token. SIGTERM ends with status 0, Ctrl-C with 130.
    """
    from experiments.viewer.serve import view_runs

    def announce(where: dict[str, Any], address: str) -> None:
        click.echo(json.dumps(where) if as_json else f"the viewer is at {where['url']}")
        if address != where["url"]:
            click.echo(f"palaestra: open it with its token: {address}", err=True)
        if not no_browser:
            click.launch(address)

    if view_runs(run, root, host, port, token_env, announce):
        raise KeyboardInterrupt


@click.command(epilog=example("palaestra fork demo-mad 3 moderator/0 --model hf:models/judge"))
@click.argument("run")
@click.argument("episode")
@click.argument("turn")
@click.option("--model", help="Plays the turn's role from this turn on.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=read_settings,
    metavar="ROLE.KEY=VALUE",
    help="A setting of a role from this turn on: judge.model=hf:DIR, solver.temperature=0, critic.instructions=…, or "
    "of the engine or pool. May be repeated.",
)
@click.option("--seed", type=int, help="Of what is drawn from this turn on.")
@click.option("--message", type=click.File("r", encoding="utf-8"), help="A file in place of the turn's last message.")
@click.option("--reply", type=click.File("r", encoding="utf-8"), help="A file in place of the turn's reply.")
@click.option("--change", "change", type=click.File("r", encoding="utf-8"), hidden=True)
@click.option("--name", help="Name of the branch; RUN-fork-1 and so on when left out.")
@RUNS
@JSON
@click.pass_context
def fork(
    context: click.Context, run: str, episode: str, turn: str, root: Path, as_json: bool, change: Any, **options: Any
) -> None:
    """Play EPISODE of RUN again from TURN on, with something changed.

    What was said before is taken as recorded, and nothing is asked for it; then the turn is changed, and the rest is
    played with real models. The branch is a run of its own. EPISODE is as in `palaestra show`; `-` as a file is stdin.
    """
    from experiments.runs import Run
    from experiments.show import render_episode
    from experiments.viewer.fork import fork as play_again
    from experiments.viewer.keys import key_of

    texts = {name: file.read() for name in ("message", "reply") if (file := options.pop(name)) is not None}
    if change is not None:  # from the viewer: what may be long or private is in no list of processes
        texts, options = {}, {**options, **json.load(change)}
    branch = play_again(run, options.pop("position", episode), turn, root=root, **options, **texts)
    found = next(branch.episodes())
    fork = branch.config["fork"]
    data = {**fork, "parent": fork["run"], "run": branch.name, "failure": found.failure, "answer": found.answer}
    data["key"] = key_of(root.resolve(), branch.path.resolve())
    print_result(render_episode(Run(branch.path), found), lambda: data, as_json)
    context.exit(1 if found.failure is not None else 0)
