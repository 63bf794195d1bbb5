"""Resolves requirements with uv: a lockfile, and which wheels there are for it.

Usage: python3 -I - REQUIREMENTS OUTPUT PYTHON_VERSION LOCKFILE_CAP with this script on standard input.
Writes OUTPUT/lockfile.txt and OUTPUT/wheels.json. Exits 0, or 3 when the requirements can't be resolved (uv's words
are on standard error), or 4 when the lockfile is larger than the cap.
"""
import json
import os
import platform
import subprocess
import sys
import tomllib
import urllib.parse

requirements, output, python_version, cap = sys.argv[1:5]
UV = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-build", "--no-python-downloads", "--color", "never",
      "--no-progress", "--python", "/usr/bin/python3", "--python-version", python_version]


def uv(*options, text):
    result = subprocess.run([*UV, *options, "-"], input=text, stdout=subprocess.PIPE)
    if result.returncode != 0:
        sys.exit(3)
    return result.stdout


with open(requirements, "rb") as stream:
    lockfile = uv(text=stream.read())
with open(os.path.join(output, "lockfile.txt"), "wb") as stream:
    stream.write(lockfile)
if len(lockfile) > int(cap):
    sys.exit(4)

pylock = tomllib.loads(uv("--no-deps", "--format", "pylock.toml", text=lockfile).decode("utf-8"))
packages = []
for package in pylock.get("packages", []):
    wheels = []
    for wheel in package.get("wheels", []):
        url = wheel.get("url", "")
        name = wheel.get("name") or urllib.parse.unquote(url.split("#")[0].split("?")[0].rsplit("/", 1)[-1])
        sha256 = wheel.get("hashes", {}).get("sha256")
        if url.startswith(("https://", "http://")) and sha256:
            wheels.append({"url": url, "file": name, "sha256": sha256})
    packages.append({"name": package["name"], "version": package.get("version", ""), "wheels": wheels})
libc, version = platform.libc_ver()
with open(os.path.join(output, "wheels.json"), "w", encoding="utf-8") as stream:
    json.dump({"glibc": version if libc == "glibc" else "", "packages": packages}, stream)
