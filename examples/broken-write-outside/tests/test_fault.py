"""Writes where nothing may be written."""

import pathlib
import unittest


class Fault(unittest.TestCase):
    def test_fault(self):
        pathlib.Path("/tmp/allowed").write_text("scratch space is there")
        pathlib.Path("/opt/app/left-behind").write_text("this must fail")
