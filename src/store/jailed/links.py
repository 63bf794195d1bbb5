"""Finds the hosts on which an index keeps the files of some packages: those that its pages for them link to.

Usage: python3 -I - ASKED OUTPUT with this script on standard input; ASKED is JSON: {indexes: [URL], names: [NAME]}.
Writes OUTPUT/hosts.json: [[HOST, PORT]]. A page that can't be read links nowhere.

Source: the simple repository API of the Python packaging specifications, as HTML and as JSON.
"""
import base64
import concurrent.futures
import html.parser
import json
import os
import re
import sys
import urllib.parse
import urllib.request

PAGE_CAP = 32 * 1024 * 1024
HOSTS_CAP = 32
NAMES_CAP = 64
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
PORTS = {"http": 80, "https": 443}


class Links(html.parser.HTMLParser):
    def __init__(self, base):
        super().__init__()
        self.base = base
        self.found = []

    def handle_starttag(self, tag, attributes):
        target = dict(attributes).get("href")
        if target and tag == "base":
            self.base = urllib.parse.urljoin(self.base, target)
        elif target and tag == "a":
            self.found.append(urllib.parse.urljoin(self.base, target))


def links(address):
    parts = urllib.parse.urlsplit(address)
    headers = {"User-Agent": "pantry", "Accept": ACCEPT}
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        parts = parts._replace(netloc=parts.netloc.rsplit("@", 1)[1])
    request = urllib.request.Request(urllib.parse.urlunsplit(parts), headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        kind, base = answer.headers.get_content_type(), answer.geturl()
        page = answer.read(PAGE_CAP + 1)
    if len(page) > PAGE_CAP:
        return []
    if kind.endswith("json"):
        return [urllib.parse.urljoin(base, file["url"]) for file in json.loads(page)["files"]]
    parser = Links(base)
    parser.feed(page.decode("utf-8", "replace"))
    return parser.found


def hosts(address):
    try:
        found = links(address)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()
    out = set()
    for link in found:
        try:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme in PORTS and parts.hostname:
                out.add((parts.hostname, parts.port or PORTS[parts.scheme]))
        except ValueError:
            pass
    return out


asked_path, output = sys.argv[1:3]
with open(asked_path, encoding="utf-8") as stream:
    asked = json.load(stream)
names = sorted({re.sub(r"[-_.]+", "-", name).lower() for name in asked["names"]})[:NAMES_CAP]
pages = [f"{index.rstrip('/')}/{urllib.parse.quote(name)}/" for index in asked["indexes"] for name in names]
found = set()
with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
    for several in pool.map(hosts, pages):
        found |= several
with open(os.path.join(output, "hosts.json"), "w", encoding="utf-8") as stream:
    json.dump(sorted(found)[:HOSTS_CAP], stream)
