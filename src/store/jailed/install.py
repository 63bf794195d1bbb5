"""Installs wheels that lie in a directory, offline, so that the result is the same run after run.

Usage: python3 -s -S - WHEELS LOCKFILE OUTPUT IN_PACK_PATH with this script on standard input, and PYTHONHASHSEED=0.
Exits 0, or 3 when uv refuses (its words are on standard error).
"""
import compileall
import os
import py_compile
import shutil
import subprocess
import sys

wheels, lockfile, output, in_pack = sys.argv[1:5]
site = "/tmp/site"

result = subprocess.run([
    "uv", "pip", "install", "--quiet", "--offline", "--no-index", "--find-links", wheels, "--no-deps", "--no-build",
    "--no-python-downloads", "--color", "never", "--no-progress", "--link-mode", "copy",
    "--python", "/usr/bin/python3", "--target", site, "--requirements", lockfile,
])
if result.returncode != 0:
    sys.exit(3)

lock = os.path.join(site, ".lock")
if os.path.exists(lock):
    os.unlink(lock)

# uv notes when each wheel file was written: that differs from run to run, and only uv's own cache asks for it.
NOTE = "uv_cache.json"
for name in sorted(os.listdir(site)):
    note = os.path.join(site, name, NOTE)
    if name.endswith(".dist-info") and os.path.exists(note):
        os.unlink(note)
        record = os.path.join(site, name, "RECORD")
        with open(record, encoding="utf-8", newline="") as stream:
            lines = [line for line in stream if not line.startswith(f"{name}/{NOTE},")]
        with open(record, "w", encoding="utf-8", newline="") as stream:
            stream.writelines(lines)

# Scripts name the interpreter that installed them; in the pack there is one, at a fixed place.
scripts = os.path.join(site, "bin")
for name in sorted(os.listdir(scripts)) if os.path.isdir(scripts) else []:
    path = os.path.join(scripts, name)
    if os.path.islink(path) or not os.path.isfile(path):
        continue
    with open(path, "rb") as stream:
        content = stream.read()
    first, newline, rest = content.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        with open(path, "wb") as stream:
            stream.write(b"#!/usr/bin/python3" + newline + rest)
        os.chmod(path, 0o755)
    elif first == b"#!/bin/sh" and b"exec" in rest[:20] and b"python" in rest.split(b"\n", 1)[0]:
        # The long-path form: a shell line, then Python from the third line on.
        with open(path, "wb") as stream:
            stream.write(b"#!/usr/bin/python3\n" + rest.split(b"\n", 2)[2])
        os.chmod(path, 0o755)

# Time stamps are fixed in a pack, so byte code is bound to the source's hash and never checked again. A file that
# doesn't compile (some packages ship templates) stays as it is.
compileall.compile_dir(
    site, quiet=2, force=True, workers=1, stripdir=site, prependdir=in_pack,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
shutil.copytree(site, output, dirs_exist_ok=True, symlinks=True)
