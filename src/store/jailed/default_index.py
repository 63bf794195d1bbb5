"""Says which index the resolver uses when none is named: asks it for something, while it can reach nothing.

Usage: python3 -I - OUTPUT with this script on standard input. Writes OUTPUT/index.txt; exits 0, or 3 when the
resolver's answer names no index.
"""
import os
import re
import subprocess
import sys

NOTHING = "pantry-asks-for-nothing"

result = subprocess.run(
    ["uv", "pip", "compile", "--quiet", "--no-header", "--no-build", "--no-python-downloads", "--color", "never",
     "--no-progress", "--python", "/usr/bin/python3", "-"],
    input=NOTHING.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    env={**os.environ, "UV_HTTP_RETRIES": "0", "UV_NO_CONFIG": "1"})
found = re.search(r"(https?://[^\s`'\"()]+/)" + NOTHING, result.stderr.decode("utf-8", "replace"))
if not found:
    sys.stderr.buffer.write(result.stderr)
    sys.exit(3)
with open(os.path.join(sys.argv[1], "index.txt"), "w", encoding="utf-8") as stream:
    stream.write(found.group(1))
