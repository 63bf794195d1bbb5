"""Prints until it is stopped."""

import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        while True:
            print("x" * 4096)
