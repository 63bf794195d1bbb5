"""Forks until it is stopped."""

import os
import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        while True:
            os.fork()
