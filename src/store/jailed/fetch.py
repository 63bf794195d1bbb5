"""Downloads files and proves their SHA-256.

Usage: python3 -I - WANTED OUTPUT with this script on standard input; WANTED is a JSON list of {url, file, sha256}.
Writes OUTPUT/<sha256> for each. Exits 0, or 3 with a sentence on standard error.
"""
import base64
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

CAP = 512 * 1024 * 1024
TRIES = 3

wanted_path, output = sys.argv[1:3]


class Refused(Exception):
    pass


def request_of(url):
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise Refused(f"not a web address: {parts.scheme}")
    headers = {"User-Agent": "pantry", "Accept-Encoding": "identity"}
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        parts = parts._replace(netloc=parts.netloc.rsplit("@", 1)[1])
    return urllib.request.Request(urllib.parse.urlunsplit(parts._replace(fragment="")), headers=headers)


def download(item, left):
    path = os.path.join(output, item["sha256"])
    digest = hashlib.sha256()
    size = 0
    with urllib.request.urlopen(request_of(item["url"]), timeout=30) as answer, open(path, "wb") as stream:
        while piece := answer.read(256 * 1024):
            size += len(piece)
            if size > left:
                raise Refused("the files are larger than allowed together")
            digest.update(piece)
            stream.write(piece)
    if digest.hexdigest() != item["sha256"]:
        os.unlink(path)
        raise Refused("the index sent other bytes than it announced (SHA-256 differs)")
    return size


def fetch(item, left):
    """Downloads one file, with a second and third try where that may help; gives its size."""
    for attempt in range(1, TRIES + 1):
        try:
            return download(item, left)
        except urllib.error.HTTPError as error:
            problem = f"the index answered {error.code}"
            hopeless = error.code < 500 and error.code != 429
        except Refused as error:
            problem, hopeless = str(error), True
        except (OSError, ValueError) as error:
            problem, hopeless = str(error), False
        if hopeless or attempt == TRIES:
            print(f"{item['file']}: {problem}", file=sys.stderr)
            sys.exit(3)
        time.sleep(attempt)


with open(wanted_path, encoding="utf-8") as stream:
    wanted = json.load(stream)
left = CAP
for item in wanted:
    left -= fetch(item, left)
