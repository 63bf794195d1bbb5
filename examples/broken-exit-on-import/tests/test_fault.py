"""Passes; the import of the component is what fails."""

import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        self.assertTrue(True)
