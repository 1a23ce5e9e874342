"""pytest-cov measures nothing here, and is in nobody's way."""

import pytest

import covered


def test_covered():
    assert covered.double(2) == 4


@pytest.mark.no_cover
def test_no_cover(cov):
    assert covered.double(3) == 6


def test_fails():
    assert covered.double(2) == 5
