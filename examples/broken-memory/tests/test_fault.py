"""Takes memory until it is stopped."""

import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        taken = []
        while True:
            taken.append(bytearray(b"x") * (8 * 1024 * 1024))
