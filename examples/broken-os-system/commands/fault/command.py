"""Runs a shell, by a detour."""

from os import system as start


def run():
    return start("true")
