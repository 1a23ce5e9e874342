"""hypothesis: settings, profiles, its database of examples, and what it says of those that fail."""

import os
import time
import unittest

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, note, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

DRAWN = []


@given(st.lists(st.integers()))
def test_holds(numbers):
    assert sorted(numbers) == sorted(reversed(numbers))


@given(st.integers())
def test_falsified(number):
    note("looked at %d" % number)
    assert number < 1000


@given(st.integers())
@example(77)
def test_explicit_example(number):
    assert number != 77


@settings(max_examples=20, deadline=None)
@given(st.text())
def test_text(text):
    assert text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogatepass") == text


@settings(max_examples=5, deadline=5)
@given(st.booleans())
def test_deadline(_):
    time.sleep(0.05)


@settings(max_examples=20, derandomize=True)
@given(st.integers())
def test_without_chance(number):
    DRAWN.append(number)
    assert len(DRAWN) <= 20


@given(st.integers())
def test_assumes_too_much(number):
    assume(number == 12345678901)


@settings(suppress_health_check=list(HealthCheck), max_examples=10)
@given(st.data(), st.integers(0, 9))
@pytest.mark.parametrize("base", [1, 2])
def test_parameters(base, data, number):
    assert data.draw(st.integers(base, 20)) >= base > number - 10


@settings(phases=[Phase.reuse] if "TEST_ONLY_KNOWN" in os.environ else list(Phase))
@given(st.integers())
def test_known_example(number):
    """With the variable it fails only if the database has what an earlier run has found."""
    assert number < 100_000


class Counter(RuleBasedStateMachine):
    value = 0

    @rule(step=st.integers(0, 3))
    def grow(self, step):
        self.value += step

    @invariant()
    def is_small(self):
        assert self.value < 9


TestCounter = Counter.TestCase


class TestUnit(unittest.TestCase):
    @given(st.integers())
    def test_method(self, number):
        self.assertEqual(number, int(str(number)))
