"""Games of SPC with scripted replies: one place at which a wrong solution leaves a right one, so that nothing is drawn.

Answers are the words of the fixture `words`: yes is right.
"""

from collections.abc import Sequence
from typing import Any

from graphs import Episode
from graphs.spc import spc

YES, NO = "\\boxed{yes}", "\\boxed{no}"
BEFORE, STEP, SPOILED = "2 + 3 = 5\n", "5 + 4 = 9", "5 + 4 = 8"
GOOD, BAD = f"{BEFORE}{STEP}\n{YES}", f"{BEFORE}5 + 4 = 7\n{NO}"
CORRECT, INCORRECT = "Verdict: correct", "Verdict: incorrect"


def ended(right: int, of: int = 8) -> list[str]:
    """Completions, of which some reach the right answer."""
    return [YES] * right + [NO] * (of - right)


def sabotage(step: str = SPOILED, kind: str = "digit") -> str:
    return f"Error: {kind}\nStep: {step}"


def game(
    play_scripted: Any,
    right: int = 8,
    spoiled: Sequence[int] = (0,),
    sneaky: Sequence[str] = (sabotage(),),
    critic: Sequence[str] = (INCORRECT, CORRECT),
    **settings: Any,
) -> Episode:
    """One game.

    Args:
        play_scripted: the fixture.
        right: completions from behind the step that are right.
        spoiled: of each sabotage that is completed.
        sneaky: the generator's replies.
        critic: the critic's.
        settings: the topology's.
    """
    of = settings.get("completions", 8)
    solver = [GOOD, BAD, *ended(right, of), *(reply for count in spoiled for reply in ended(count, of))]
    script = {"solver": solver, **({"sneaky": sneaky} if sneaky else {}), **({"critic": critic} if critic else {})}
    return play_scripted(spc, script, {"solutions": 2, "sabotages": max(1, len(sneaky)), **settings})
