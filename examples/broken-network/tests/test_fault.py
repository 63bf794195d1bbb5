"""Tries to reach an address that is reserved for documentation."""

import socket
import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        # Passes only where a connection can at least be begun.
        with socket.socket() as connection:
            connection.settimeout(5)
            try:
                connection.connect(("192.0.2.1", 80))
            except TimeoutError:
                pass
