"""Subtests, pytest's own and unittest's."""

import unittest


def test_subtests(subtests):
    for number in range(3):
        with subtests.test("of three", number=number):
            assert number >= 0


def test_one_fails(subtests):
    for number in range(3):
        with subtests.test("of three", number=number):
            assert number != 1


class Case(unittest.TestCase):
    def test_all(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertGreaterEqual(number, 0)

    def test_one_fails(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 2)
