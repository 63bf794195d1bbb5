"""Tests of the greeter; `python3 -m unittest tests.test_greet` in the package's folder."""

import contextlib
import io
import unittest

from commands.greet import command


class Sentences(unittest.TestCase):
    def test_a_name_gets_its_capitals(self):
        self.assertEqual(command.sentence("ada lovelace"), "Hello, Ada Lovelace!")

    def test_visits_are_ordinals(self):
        self.assertTrue(command.sentence("ada", 1).endswith("your 1st visit."))
        self.assertTrue(command.sentence("ada", 22).endswith("your 22nd visit."))


class Frames(unittest.TestCase):
    def test_all_lines_are_equally_wide(self):
        lines = command.framed(["a", "longer"]).split("\n")
        self.assertEqual(len({len(line) for line in lines}), 1)

    def test_no_line_makes_an_empty_frame(self):
        self.assertEqual(command.framed([]), "+--+\n+--+")


class Program(unittest.TestCase):
    def test_it_prints_the_greeting(self):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(command.main(["world"]), 0)
        self.assertIn("| Hello, World! |", out.getvalue())

    def test_a_visit_below_one_is_refused(self):
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as ended:
            command.main(["--visit", "0"])
        self.assertEqual(ended.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
