"""pytest-randomly: one seed for all, also for what is drawn when modules are imported."""

import random

import pytest

DRAWN = random.randrange(10**9)


def test_seed(request):
    seed = request.config.getoption("randomly_seed")
    print("seed %s, drew %d" % (seed, random.randrange(10**9)))
    assert 0


@pytest.mark.parametrize("number", [DRAWN])
def test_parameter_is_drawn(number):
    assert number == DRAWN
