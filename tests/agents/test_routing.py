"""Routing: balanced to within the slack, back to whoever has the beginning, never to a replica that is not offered."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agents import Completion, Message, Request, Sampling
from agents.routing import Route, Router


def request(text: str, prefix: tuple[int, ...] = (), policy: str = "") -> Request:
    return Request("t/0/solver/0", (Message("user", text),), Sampling(max_tokens=50), 0, prefix, policy=policy)


def completion(prompt: int = 20, reply: int = 30) -> Completion:
    ids = tuple(range(prompt)), tuple(range(100, 100 + reply))
    return Completion("x", "stop", "p", "1", *ids, prompt_tokens=prompt, completion_tokens=reply)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 30),  # which conversation it begins like
        st.integers(0, 3000),  # how long its prompt is, in characters
        st.sets(st.integers(0, 3), min_size=1),  # who may be asked
        st.integers(0, 5),  # how many outstanding ones end before
    ),
    max_size=60,
)


@given(STEPS)
def test_only_candidates_are_chosen_and_load_stays_within_the_slack(
    steps: list[tuple[int, int, set[int], int]],
) -> None:
    router, slack = Router(slack=200.0), 200.0
    outstanding: list[tuple[Route, Request]] = []
    for conversation, length, candidates, ending in steps:
        for _ in range(min(ending, len(outstanding))):
            route, asked = outstanding.pop(0)
            router.finish(route, asked, completion())
        asked = request(f"{conversation}".ljust(length))
        before = {i: router.tokens[i] for i in range(4)}
        route = router.choose(asked, sorted(candidates))
        outstanding.append((route, asked))
        assert route.replica in candidates
        assert before[route.replica] - min(before[i] for i in candidates) <= slack
    for route, asked in outstanding:
        router.finish(route, asked, None)
    assert not any(router.tokens.values()) and not any(router.requests.values())


def test_a_conversation_goes_on_where_it_was_unless_that_is_too_far_ahead() -> None:
    router = Router(slack=150.0)
    first = request("once")
    router.finish(router.choose(first, [1]), first, completion())
    follow = request("and then?", (*completion().prompt_ids, *completion().token_ids))
    assert router.choose(follow, [0, 1]).replica == 1
    assert router.choose(follow, [0, 1]).replica == 1  # ahead of the idle one, by less than the slack
    assert router.choose(follow, [0, 1]).replica == 0  # ahead by two of them, each of about 100 tokens


def test_samples_of_one_prompt_stay_together_under_light_load_and_others_spread() -> None:
    router = Router()
    assert {router.choose(request("the same"), [0, 1]).replica for _ in range(5)} == {0}
    assert router.choose(request("another"), [0, 1]).replica == 1


def test_policies_share_no_cache() -> None:
    router = Router()
    assert router.choose(request("the same"), [0, 1]).replica == 0
    assert router.choose(request("the same", policy="critic"), [0, 1]).replica == 1


def test_a_home_that_is_not_offered_is_left() -> None:
    router = Router()
    assert router.choose(request("x"), [0, 1]).replica == 0
    assert router.choose(request("x"), [1]).replica == 1


def test_estimates_follow_what_is_seen() -> None:
    router = Router()
    long = replace(request("a" * 1000), sampling=Sampling(max_tokens=5000))
    first = router.choose(long, [0])
    for _ in range(500):
        router.finish(router.choose(long, [0]), long, completion(prompt=500, reply=1000))
    assert router.choose(long, [0]).tokens > 1400 > 500 > first.tokens  # 2 characters a token, 1000 tokens a reply


def test_memory_is_bounded() -> None:
    router = Router(remembered=10)
    for n in range(100):
        asked = request(str(n))
        router.finish(router.choose(asked, [0, 1]), asked, completion(prompt=n))
    assert len(router._homes) == 10
