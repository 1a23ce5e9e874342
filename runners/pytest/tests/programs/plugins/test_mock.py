"""pytest-mock."""

import os

import pytest

import covered


def test_patches(mocker):
    mocker.patch("os.getcwd", return_value="/patched")
    assert os.getcwd() == "/patched"


def test_patch_is_gone():
    assert os.getcwd() != "/patched"


def test_spy(mocker):
    spy = mocker.spy(covered, "double")
    assert covered.double(2) == 4
    spy.assert_called_once_with(2)


def test_not_called(mocker):
    stub = mocker.stub(name="stub")
    stub("one")
    stub.assert_called_once_with("two")


@pytest.fixture(scope="module")
def patched(module_mocker):
    return module_mocker.patch.object(covered, "triple", return_value=0)


@pytest.mark.parametrize("number", [1, 2])
def test_module_mocker(patched, number):
    assert covered.triple(number) == 0
