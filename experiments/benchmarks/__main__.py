"""The benchmarks: `python -m experiments.benchmarks` lists them, with names it runs those, with `all` every one."""

import ast
import subprocess
import sys
from pathlib import Path

import click

HERE = Path(__file__).parent


def benchmarks() -> dict[str, str]:
    """Name -> the first line of what it says of itself."""
    found = {}
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        is_command = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if is_command and path.stem != "__main__":
            found[path.stem] = (ast.get_docstring(tree) or "").partition("\n")[0].partition(": `")[0]
    return found


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """List the benchmarks, or run those that are named (all: every one), each with its defaults."""
    known = benchmarks()
    for name in names:
        if name != "all" and name not in known:
            raise click.BadParameter(f"{name} is none of {', '.join(known)}, all", param_hint="NAMES")
    if not names:
        for name, about in known.items():
            click.echo(f"{name:<16}{about}")
        click.echo("\npython -m experiments.benchmarks.NAME --help tells of the settings of one")
    failed = []
    # Orchestration is made of others.
    for name in (one for one in known if one != "orchestration") if "all" in names else names:
        click.echo(f"== {name}", err=True)
        if subprocess.run([sys.executable, "-m", f"experiments.benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
