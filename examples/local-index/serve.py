#!/usr/bin/env python3
"""A small package index on loopback, with wheels made here.

Stand-ins for the few packages that the examples depend on, so that the demo and the tests work where no index answers.
They have the names and versions of the real ones and only the functions that the examples call; the fillers for
`examples/broken-lockfile` exist nowhere else.

Prints its address (simple API, PEP 503) on the first line, and serves until it is ended; with --until-stdin-closes, until
whoever started it is gone.
"""

import base64
import hashlib
import http.server
import io
import re
import sys
import threading
import zipfile

INFLECTION = '''"""Stand-in: ordinals and titles of plain words."""

import re


def ordinal(number):
    number = abs(int(number))
    if number % 100 in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def ordinalize(number):
    return f"{number}{ordinal(number)}"


def titleize(word):
    return re.sub(r"\\b('?\\w)", lambda match: match.group(1).capitalize(), word)
'''

WCWIDTH = '''"""Stand-in: how many columns a text takes on a terminal."""

import unicodedata


def wcwidth(char):
    if unicodedata.combining(char):
        return 0
    if unicodedata.category(char) == "Cc":
        return -1
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wcswidth(text):
    widths = [wcwidth(char) for char in text]
    return -1 if -1 in widths else sum(widths)
'''

FILLER = re.compile(r"pantry-filler-[0-9]{3}(-[a-z0-9-]+)?")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def wheel(name, version, files, requires=()):
    """File name, bytes and metadata of a pure wheel; the same bytes each time."""
    base = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: Stand-in for tests\n"
    metadata += "".join(f"Requires-Dist: {other}\n" for other in requires)
    content = dict(files)
    content[f"{base}.dist-info/METADATA"] = metadata
    content[f"{base}.dist-info/WHEEL"] = "Wheel-Version: 1.0\nGenerator: pantry\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    content[f"{base}.dist-info/RECORD"] = record + f"{base}.dist-info/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), text)
    return f"{base}-py3-none-any.whl", out.getvalue(), metadata.encode()


KNOWN = {
    "inflection": wheel("inflection", "0.5.1", {"inflection/__init__.py": INFLECTION}),
    "wcwidth": wheel("wcwidth", "0.2.13", {"wcwidth/__init__.py": WCWIDTH}),
    # For the tests of what a resolution reaches: the second one's file is said to lie on a host that is none.
    "pantry-strays": wheel("pantry-strays", "1.0.0", {"pantry_strays.py": ""}, ["pantry-astray"]),
    "pantry-astray": wheel("pantry-astray", "1.0.0", {"pantry_astray.py": ""}),
}
ELSEWHERE = {"pantry-astray": "http://elsewhere.invalid"}


def find(project):
    if project in KNOWN:
        return KNOWN[project]
    if FILLER.fullmatch(project) and len(project) <= 255:
        return wheel(project, "1.0.0", {f"{project.replace('-', '_')}.py": '"""Nothing."""\n'})
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        page = re.fullmatch(r"/simple/([^/]+)/?", self.path)
        file = re.fullmatch(r"/files/([^/]+)/([^/]+?)(\.metadata)?", self.path)
        if page:
            found = find(canonical(page.group(1)))
            if found:
                name, data, metadata = found
                digest, meta = hashlib.sha256(data).hexdigest(), hashlib.sha256(metadata).hexdigest()
                host = ELSEWHERE.get(canonical(page.group(1)), "")
                link = f"{host}/files/{canonical(page.group(1))}/{name}#sha256={digest}"
                body = f'<!DOCTYPE html><a href="{link}" data-core-metadata="sha256={meta}">{name}</a>\n'
                return self.answer(200, "text/html", body.encode())
        elif file:
            found = find(file.group(1))
            if found and found[0] == file.group(2):
                return self.answer(200, "application/octet-stream", found[2] if file.group(3) else found[1])
        return self.answer(404, "text/plain", b"not here\n")

    do_HEAD = do_GET

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    server = Server(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/simple/", flush=True)
    if "--until-stdin-closes" in sys.argv[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
    else:
        server.serve_forever()


if __name__ == "__main__":
    main()
