"""Greets people in a frame, and counts their visits."""

import argparse

from inflection import ordinalize, titleize
from wcwidth import wcswidth


def sentence(name, visit=None):
    """The greeting of one person."""
    greeting = f"Hello, {titleize(name)}!"
    if visit is not None:
        greeting += f" This is your {ordinalize(visit)} visit."
    return greeting


def framed(lines):
    """The lines in a frame; wide characters count as what they take on a terminal."""
    widths = [max(wcswidth(line), 0) for line in lines]
    widest = max(widths, default=0)
    edge = "+" + "-" * (widest + 2) + "+"
    body = [f"| {line}{' ' * (widest - width)} |" for line, width in zip(lines, widths)]
    return "\n".join([edge, *body, edge])


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a visit is counted from 1")
    return number


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="greet", description="Greets people in a frame.")
    parser.add_argument("names", nargs="*", default=["world"], metavar="NAME", help="whom to greet")
    parser.add_argument("--visit", type=positive, metavar="N", help="which visit of theirs it is")
    options = parser.parse_args(arguments)
    print(framed([sentence(name, options.visit) for name in options.names]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
