"""What CPython runs in the sandbox: takes limits upon itself, reads the program from stdin and runs it.

Its text is handed to the interpreter, so it imports nothing but the standard library, and of that little: each import
costs every program. Its arguments are the names and values of the limits. Of a program that raises it writes one
line to stderr: kind, line number, message, with tabs between. A program can forge that line, and deceives nobody but
itself.
"""

import os
import resource
import sys

MESSAGE_CHARS = 500


def main(limits: list[str]) -> None:
    for name, most in zip(limits[::2], limits[1::2], strict=True):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(most), int(most)))
    tell, leave = os.write, os._exit
    source = sys.stdin.buffer.read()
    module = type(sys)("__main__")
    sys.modules["__main__"], sys.argv = module, [""]
    # What was printed is there when the program is killed.
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        exec(compile(source, "<program>", "exec"), module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the program raises
        line = _line(error)
        said = f"\n{_kind(error)}\t{line}\t{_message(error)}".encode("utf-8", "replace")
        try:
            sys.stdout.flush()
        finally:
            tell(2, said)
            leave(1)


def _kind(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, SyntaxError):
        return "syntax"
    refused = isinstance(error, (PermissionError, ImportError))
    return "forbidden" if refused or (isinstance(error, OSError) and error.errno == 30) else "error"


def _line(error: BaseException) -> int:
    """Of the program, where it was last; 0 when it was nowhere."""
    line = (error.lineno or 0) if isinstance(error, SyntaxError) and error.filename == "<program>" else 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<program>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _message(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    name = type(error).__name__
    return f"{name}: {' '.join(text[:MESSAGE_CHARS].split())}" if text else name


if __name__ == "__main__":
    main(sys.argv[1:])
