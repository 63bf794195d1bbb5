"""A component without a fault."""


def run():
    return "well"
