"""Whether two mathematical answers are the same: math-verify, in a worker process that can be killed.

Symbolic comparison may run for ever or take its process down. `Grader.call` gives a worker a deadline, kills it when
the deadline passes or the worker dies, and says so; the next call gets a fresh one. Signals and threads are not used
to stop a comparison: neither works everywhere (signals not off the main thread, threads not at all).
"""

import asyncio
import contextlib
import logging
import queue
import re
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from fractions import Fraction
from typing import Any

START_S = 60.0
"""Deadline for a worker to start and answer."""
_PLAIN = re.compile(r"([-+]?)(\d{1,3}(?:,\d{3}){1,9}|\d{1,30})(\.\d{1,30})?")

_MULTIPLIERS = frozenset(("dozen", "hundred", "thousand", "million", "billion", "trillion", "percent", "half"))


class GraderError(RuntimeError):
    """A call hung until its deadline or took its worker down."""


class Grader:
    """A few worker processes, started when first needed, each with one call at a time.

    Use it for any function that may hang or crash: it must be importable, its arguments and result picklable.
    """

    def __init__(self, workers: int = 1, timeout_s: float = 10.0, prepare: Callable[[], object] = int):
        """
        Args:
            workers: most calls at once.
            timeout_s: of one call, once the worker is up.
            prepare: called first in each worker, such as an import that takes long.
        """
        self.timeout_s, self._prepare = timeout_s, prepare
        self._slots: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(workers):
            self._slots.put(None)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in a worker.

        Raises:
            GraderError: no result within `timeout_s`, or the worker died.
            Exception: whatever the function itself raises.
        """
        return await asyncio.to_thread(self._call, function, *args)

    def close(self) -> None:
        """Stop the idle workers; the grader can be used again."""
        for _ in range(self._slots.qsize()):
            with contextlib.suppress(queue.Empty):
                worker = self._slots.get_nowait()
                self._slots.put(None)
                if worker is not None:
                    worker.shutdown(wait=True, kill_workers=True)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        from loky.process_executor import BrokenProcessPool

        worker = self._slots.get()
        usable = False
        try:
            if worker is None or not _is_alive(worker):
                worker = self._start()
            future = worker.submit(function, *args)
            done, _ = wait([future], self.timeout_s)
            usable = bool(done) and not isinstance(future.exception(), BrokenProcessPool)
            if not done:
                raise GraderError(f"no result within {self.timeout_s:g} s")
            if not usable:
                raise GraderError("the worker process died")
            return future.result()
        finally:
            if not usable and worker is not None:
                worker.shutdown(wait=False, kill_workers=True)
            self._slots.put(worker if usable else None)

    def _start(self) -> Any:
        from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

        # loky rather than multiprocessing: its workers do not import the user's main script anew.
        worker = ProcessPoolExecutor(max_workers=1, timeout=None)
        try:
            worker.submit(self._prepare).result(START_S)
        except (TimeoutError, BrokenProcessPool) as error:
            worker.shutdown(wait=False, kill_workers=True)
            raise GraderError(f"the worker process did not start: {type(error).__name__}") from None
        return worker


def _is_alive(worker: Any) -> bool:
    """Whether the worker answers: one that was killed while idle says so only when it is asked."""
    from loky.process_executor import BrokenProcessPool

    try:
        worker.submit(int).result(START_S)
    except (TimeoutError, BrokenProcessPool):
        worker.shutdown(wait=False, kill_workers=True)
        return False
    return True


def import_math_verify() -> None:
    """What a worker that compares answers begins with."""
    import math_verify  # noqa: F401


def same_text(a: str, b: str) -> bool:
    """Equal but for case, spaces, a currency or math sign around, and a full stop at the end."""
    return _normal(a) == _normal(b)


def same_number(a: str, b: str) -> bool | None:
    """Whether two plain numbers are equal; None when that is not for plain arithmetic to say (then ask math-verify)."""
    x, y = _plain(a), _plain(b)
    if x is None or y is None:
        return None
    return True if x == y else False if x.denominator == y.denominator == 1 else None


def equivalent(reference: str, answer: str) -> bool:
    """Whether math-verify holds an answer equal to the reference. Run it through a Grader.

    Both are final answers as LaTeX or plain text. Numbers are compared to six decimals. Prose and answers that offer
    an alternative ("4 or 5") equal nothing that is not written the same: math-verify would pick a number out of them.
    """
    if not _is_expression(answer):
        return False
    from math_verify import parse, verify

    # It warns at every call that its own timeouts are off: the deadline here is the process's.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    gold, found = (parse(f"\\boxed{{{_units_as_text(text)}}}", parsing_timeout=0) for text in (reference, answer))
    return verify(gold, found, timeout_seconds=0)


def group_equivalent(answers: Sequence[str]) -> list[int]:
    """For each answer the index of the first one that is equivalent to it. Run it through a Grader."""
    groups: list[int] = []
    for i, answer in enumerate(answers):
        groups.append(next((g for g in dict.fromkeys(groups) if _same(answers[g], answer)), i))
    return groups


def group_by_text(answers: Sequence[str]) -> list[int]:
    """The same by text and plain numbers alone, without math-verify."""
    groups: list[int] = []
    for i, answer in enumerate(answers):
        groups.append(next((g for g in dict.fromkeys(groups) if _quick(answers[g], answer)), i))
    return groups


def _units_as_text(text: str) -> str:
    """`18 dollars` as math-verify knows it, `18\\text{ dollars}`; words that change the value stay."""
    match = re.fullmatch(r"(.*[\d}])\s+([A-Za-z]+(?: [A-Za-z]+){0,3})", text)
    if match is None or _MULTIPLIERS & set(match[2].lower().split()):
        return text
    return f"{match[1]}\\text{{ {match[2]}}}"


def _is_expression(text: str) -> bool:
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)
    return len(text) <= 400 and len(words) <= 4 and not {"or", "and"} & {word.lower() for word in words}


def _same(a: str, b: str) -> bool:
    quick = same_number(a, b)
    return same_text(a, b) or (equivalent(a, b) if quick is None else quick)


def _quick(a: str, b: str) -> bool:
    return same_text(a, b) or bool(same_number(a, b))


def _normal(text: str) -> str:
    bare = text.strip().strip("$").replace("\\left", "").replace("\\right", "").replace("\\dfrac", "\\frac")
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", bare)
    # The space in 1 1/2 is not for nothing.
    return re.sub(r"(?<!\d) | (?!\d)", "", re.sub(r"\s+", " ", bare)).removesuffix(".").casefold()


def _plain(text: str) -> Fraction | None:
    match = _PLAIN.fullmatch(text.strip().strip("$").strip())
    return Fraction(f"{match[1]}{match[2].replace(',', '')}{match[3] or ''}") if match else None
