"""Passes; the checks are what rejects this package."""

import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        self.assertTrue(True)
