"""Fails."""

import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        self.assertEqual(1 + 1, 3)
