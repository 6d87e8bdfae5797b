"""The verbs `export` and `import` of the command."""

from pathlib import Path
from typing import Any

import click

from envs.errors import ConfigError
from experiments.options import JSON, RUNS, complain, example, print_result

_FILE = click.Path(path_type=Path)


@click.command(epilog=example("palaestra export demo-mad --episode longest --html debate.html"))
@click.argument("run")
@click.option("--html", type=_FILE, help="One file that opens in a browser without a server.")
@click.option("--parquet", type=_FILE, help="A folder of two tables, episodes.parquet and turns.parquet.")
@click.option("--otel", metavar="ENDPOINT", help="An OpenTelemetry collector (OTLP/HTTP): http://127.0.0.1:4318.")
@click.option("--inspect", type=_FILE, help="A log of Inspect, FILE.eval.")
@click.option(
    "--episode",
    "episodes",
    multiple=True,
    help="This one alone, as in `palaestra show`: a number, a task's id, longest, wrong or failed. May be repeated.",
)
@click.option("--summary", is_flag=True, help="Of --html: the run's page, without episodes.")
@click.option("--contents", is_flag=True, help="Of --otel: send prompts and replies, too.")
@click.option(
    "--max-mb", type=click.FloatRange(min=0, min_open=True), help="Of --html (25) and --inspect (50): most megabytes."
)
@click.option("--force", is_flag=True, help="Replace what is there.")
@RUNS
@JSON
@click.pass_context
def export(context: click.Context, run: str, root: Path, as_json: bool, **options: Any) -> None:
    """Write RUN, or some of its episodes, for other programs: as HTML, Parquet, OpenTelemetry spans or Inspect's log.

    What is written appears whole or not at all. Episodes that cannot be read are left out, and the status is 1.
    """
    from rich.text import Text

    from experiments.export.selection import Selection
    from experiments.runs import Run
    from experiments.viewer.keys import below, kind_of

    chosen = [name for name in ("html", "parquet", "otel", "inspect") if options[name] is not None]
    if len(chosen) != 1:
        raise ConfigError("expected one of --html FILE, --parquet DIR, --otel ENDPOINT and --inspect FILE")
    (kind,) = chosen
    for option, kinds in _OF.items():
        if options[option] and kind not in kinds:
            raise ConfigError(f"--{option.replace('_', '-')} does not go with --{kind}")
    if options["summary"] and options["episodes"]:
        raise ConfigError("--summary is without episodes: leave --episode out, or --summary")
    group = kind_of(root / run)
    if group in ("training", "sweep"):
        if kind == "html" and not options["episodes"]:
            _export_group(root, run, options, as_json)
            return
        inside = next((path.relative_to(root) for path in below(root, root / run, group)), f"{run}/…")
        raise ConfigError(f"{run} is a {group}, whose episodes are in its runs: export one of these, such as {inside}")
    selection = Selection.of_run(Run.open(run, root), options["episodes"])
    spans = _write(kind, selection, root, options)
    left_out = selection.left_out()
    for words in left_out:
        complain(words)
    data = {"run": selection.run.name, kind: str(options[kind]), "episodes": selection.exported, "left_out": left_out}
    told = f"{selection.exported} episodes of {selection.run.name} → {options[kind]}"
    print_result(Text(told), lambda: data if spans is None else {**data, "spans": spans}, as_json)
    context.exit(1 if selection.unread else 0)


def _export_group(root: Path, run: str, options: dict[str, Any], as_json: bool) -> None:
    from rich.text import Text

    from experiments.export.html import MAX_MB, export_group

    path = options["html"]
    left_out = export_group(root / run, path, root, options["max_mb"] or MAX_MB, options["force"])
    data = {"run": run, "html": str(path), "episodes": 0, "left_out": left_out}
    print_result(Text(f"the page of {run}, without episodes → {path}"), lambda: data, as_json)


_OF = {
    "summary": {"html"},
    "contents": {"otel"},
    "max_mb": {"html", "inspect"},
    "force": {"html", "parquet", "inspect"},
}


def _write(kind: str, selection: Any, root: Path, options: dict[str, Any]) -> int | None:
    """Returns how many spans were sent, where spans were."""
    bound = {} if options["max_mb"] is None else {"max_mb": options["max_mb"]}
    path, force = options[kind], options["force"]
    try:
        if kind == "html":
            from experiments.export.html import export_html

            alone = len(options["episodes"]) == 1
            if options["summary"]:
                selection.positions = []
            export_html(selection, path, root, summary=not alone, force=force, **bound)
        elif kind == "parquet":
            from experiments.export.parquet import export_parquet

            export_parquet(selection, path, force)
        elif kind == "otel":
            from experiments.export.otel import export_otel

            return export_otel(selection, path, options["contents"])
        else:
            from experiments.export.inspect_log import export_inspect

            export_inspect(selection, path, force=force, **bound)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("opentelemetry", "inspect_ai"):
            raise
        raise ConfigError(f"--{kind} needs {error.name}: pip install 'palaestra[{kind}]'") from None
    return None


@click.command("import", epilog=example("palaestra import mad debates.jsonl --name debates"))
@click.argument("form", metavar="FORMAT", type=click.Choice(["mad"]))
@click.argument("file", type=_FILE)
@click.option("--name", help="Name of the run; made from the file's name and the time when left out.")
@click.option(
    "--closer", is_flag=True, help="Judge translations by which reference they resemble more, instead of not at all."
)
@RUNS
@JSON
def import_(form: str, file: Path, name: str | None, closer: bool, root: Path, as_json: bool) -> None:
    """Make a run of debates that another program recorded in FILE, to be shown, compared and looked at as any other.

    FORMAT mad: JSON lines of MAD's published code on translation. Every line is checked before anything is written.
    """
    from experiments.imports.mad import import_mad
    from experiments.show import render_summary

    summary = import_mad(file, name, root, closer).summary()
    print_result(render_summary(summary), summary.model_dump, as_json)
