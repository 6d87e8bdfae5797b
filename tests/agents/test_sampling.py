"""Drawing tokens: the right distribution, each row on its own, the log-probability of what was drawn from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.engines.sampling import draw, uniforms

BATCHES = (1, 2, 7)


def rows(batch: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3


def draw_one_by_one(logits: list[float], temperature: float, top_p: float, uniform: float) -> tuple[int, float]:
    """The same draw, written out for one row in float64."""
    values = np.array(logits, dtype=np.float64)
    if temperature == 0:
        return int(values.argmax()), float(values.max() - np.log(np.exp(values).sum()))
    p = np.exp(values / temperature - (values / temperature).max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept, mass = set(), 0.0
    for i in order:
        if mass >= top_p:
            break
        kept.add(int(i))
        mass += p[i]
    p = np.array([q if i in kept else 0.0 for i, q in enumerate(p)])
    p /= p.sum()
    total = 0.0
    for i, q in enumerate(p):
        total += q
        if total > uniform:
            return i, float(np.log(q))
    raise AssertionError("the uniform number lies above the total")


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_against_the_written_out_draw(batch: int, top_p: float) -> None:
    logits = rows(batch, 11)
    temperature = torch.tensor([(0.0, 0.5, 1.0, 2.0)[i % 4] for i in range(batch)])
    uniform = torch.tensor([(i + 0.5) / batch for i in range(batch)])
    tokens, logprobs = draw(logits, temperature, torch.full((batch,), top_p) if top_p < 1 else None, uniform)
    for i in range(batch):
        token, logprob = draw_one_by_one(logits[i].tolist(), float(temperature[i]), top_p, float(uniform[i]))
        assert int(tokens[i]) == token
        assert float(logprobs[i]) == pytest.approx(logprob, abs=1e-5)


@given(st.floats(0, 1, exclude_max=True, width=32), st.integers(0, 100))
def test_a_row_is_drawn_alike_alone_and_in_company(uniform: float, seed: int) -> None:
    logits = rows(7, 50, seed)
    alone = draw(logits[:1], torch.ones(1), None, torch.tensor([uniform]))
    company = draw(logits, torch.ones(7), None, torch.tensor([uniform] * 7))
    assert alone[0][0] == company[0][0] and alone[1][0] == company[1][0]


@given(st.integers(1, 1000).map(lambda k: 1 - k * 2.0**-24))
def test_the_last_uniform_numbers_draw_a_token_that_has_probability(uniform: float) -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf"), float("-inf")]])
    tokens, logprobs = draw(logits, torch.ones(1), None, torch.tensor([uniform]))
    assert int(tokens[0]) in (0, 1) and torch.isfinite(logprobs).all()


def test_frequencies() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20_000, 3)
    tokens, _ = draw(logits, torch.ones(20_000), None, torch.from_numpy(uniforms(3, 20_000)))
    found = torch.bincount(tokens, minlength=3) / 20_000
    assert torch.allclose(found, torch.softmax(logits[0], -1), atol=0.015)


def test_uniforms_are_fixed_by_the_seed_and_extend() -> None:
    assert (uniforms(5, 10) == uniforms(5, 4).tolist() + uniforms(5, 10)[4:].tolist()).all()
    assert (uniforms(5, 10) != uniforms(6, 10)).any()
    assert ((uniforms(2**63 - 1, 1000) >= 0) & (uniforms(2**63 - 1, 1000) < 1)).all()
