"""What the embedded engine can do beside sampling: go on from an opening, weigh choices, measure certainty."""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from agents import EngineError, Message, Request, Sampling
from agents.engines import EMBEDDED
from agents.engines.transformers import TransformersEngine
from agents.moves import CRITIQUE, SOLVE
from graphs.aggregate import self_certainty

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    made = TransformersEngine(EMBEDDED)
    yield made
    asyncio.run(made.close())


def solve(question: str, **options: Any) -> Request:
    return Request(
        "t/0/s/0", (Message("user", SOLVE.render(question=question)),), Sampling(temperature=0), 5, **options
    )


def critique(step: str) -> Request:
    text = CRITIQUE.render(question="What is 2 + 3 + 4?", steps="", step=step)
    return Request(
        f"t/0/critic/{step}",
        (Message("user", text),),
        Sampling(),
        5,
        opening=f"2 + 3 = 5; {step.rpartition(chr(32))[2]},",
        choices=(" correct", " incorrect"),
    )


def ask(engine: TransformersEngine, *requests: Request) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*map(engine.complete, requests), return_exceptions=True)

    return asyncio.run(run())


def test_the_model_goes_on_from_an_opening(engine: TransformersEngine) -> None:
    [whole, rest] = ask(engine, solve("What is 2 + 3 + 4?"), solve("What is 2 + 3 + 4?", opening="2 + 3 = 6\n"))
    assert whole.text == "2 + 3 = 5\n5 + 4 = 9\n\\boxed{9}"
    assert rest.text == "6 + 4 = 10\n\\boxed{10}", "the wrong beginning is taken as it is"
    assert rest.prompt_ids[: len(whole.prompt_ids)] == whole.prompt_ids, "and belongs to the prompt"


def test_choices_are_weighed_as_the_model_would_draw_them(engine: TransformersEngine) -> None:
    right, wrong = critique("2 + 3 = 5"), critique("2 + 3 = 6")
    for request, expected in ((right, " correct"), (wrong, " incorrect")):
        [found] = ask(engine, request)
        assert found.text == expected and not found.token_ids
        total = sum(map(math.exp, found.choice_logprobs))
        assert 0.99 < total <= 1.0001, "nothing else is likely there"
        for choice, logprob in zip(request.choices, found.choice_logprobs, strict=True):
            ids = engine.chat.encode_request(request, choice)
            with torch.no_grad():
                logits = engine.model(torch.tensor([ids])).logits[0, -2].log_softmax(-1)
            assert logprob == pytest.approx(float(logits[ids[-1]]), abs=1e-4)


def test_choices_do_not_depend_on_what_else_is_asked(engine: TransformersEngine) -> None:
    alone = ask(engine, critique("2 + 3 = 6"))[0]
    amidst = ask(engine, *[solve(f"What is {n} + 3?") for n in range(9)], critique("2 + 3 = 6"), critique("2 + 3 = 5"))
    assert amidst[9] == alone


def test_choices_that_are_the_same_are_refused(engine: TransformersEngine) -> None:
    [refused, answered] = ask(engine, solve("What is 2 + 3?", choices=("a", "a")), solve("What is 2 + 3?"))
    assert isinstance(refused, EngineError) and "must differ in their tokens" in str(refused)
    assert answered.text


def test_certainty_is_of_the_whole_vocabulary(engine: TransformersEngine) -> None:
    [plain, measured] = ask(engine, solve("What is 2 + 3?"), solve("What is 2 + 3?", certainty=True))
    assert plain.certainty == () and plain.token_ids == measured.token_ids
    ids = [*measured.prompt_ids, *measured.token_ids]
    with torch.no_grad():
        probabilities = engine.model(torch.tensor([ids])).logits[0].softmax(-1).double().numpy()
    own = probabilities[len(measured.prompt_ids) - 1 : -1]
    assert len(measured.certainty) == len(measured.token_ids)
    assert np.mean(measured.certainty) == pytest.approx(self_certainty(own), rel=1e-4)
