"""Reads every Python file below a directory, and says what packages may not do.

Only parses (``ast``): nothing of the package is imported or run. Prints one line of JSON:
{"findings": [{"code", "severity", "file", "line", "message", "snippet", "primitive", "value"}], "files", "dropped"}

Usage: python3 -I -S - ROOT [OWN_NAME...] with this script on standard input.
"""
import ast
import json
import os
import re
import sys
import warnings

warnings.simplefilter("ignore")

FILE_CAP = 2 * 1024 * 1024
FINDINGS_CAP = 400
SNIPPET_CAP = 160

EVALUATORS = {"eval", "exec"}
EXACT = {
    "builtins.eval", "builtins.exec", "os.system", "os.popen", "os.posix_spawn", "os.posix_spawnp",
    "subprocess.run", "subprocess.call", "subprocess.Popen", "subprocess.check_call", "subprocess.check_output",
    "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn",
    "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
}
PREFIXES = ("os.exec", "os.spawn", "subprocess.check_")
WATCHED_MODULES = {"os", "subprocess", "builtins", "pty", "asyncio"}
WARNED_IMPORTS = {"subprocess", "os", "shutil", "ctypes", "importlib"}
WARNED_CALLS = {"compile", "__import__"}
DATABASES = {"sqlite3", "sqlalchemy", "alembic", "psycopg2", "asyncpg", "aiosqlite", "peewee"}
LOADERS = {"importlib", "imp", "runpy", "pkgutil", "zipimport"}
DATA_CALLS = {"save", "get", "get_all", "delete", "delete_all"}
DATA_MODULE = re.compile(r"(^|\.)(command_data(_repository)?|data_repository)$")
SQL = re.compile(
    r"\b(CREATE\s+(TABLE|INDEX|DATABASE)|ALTER\s+TABLE|DROP\s+(TABLE|INDEX|DATABASE)|INSERT\s+INTO"
    r"|UPDATE\s+\S+\s+SET|DELETE\s+FROM|TRUNCATE\s+\S+|GRANT\s+\S+|REVOKE\s+\S+)",
    re.IGNORECASE,
)

findings = []
dropped = 0


def report(code, severity, file, line, message, lines=None, primitive=None, value=None):
    global dropped
    if len(findings) >= FINDINGS_CAP:
        # An error must never be pushed out by warnings.
        spare = next((f for f in findings if f["severity"] == "warning"), None)
        dropped += 1
        if severity != "error" or spare is None:
            return
        findings.remove(spare)
    found = {"code": code, "severity": severity, "file": file[:300], "line": line, "message": message[:300]}
    if lines and 0 < line <= len(lines):
        found["snippet"] = lines[line - 1].strip()[:SNIPPET_CAP]
    if primitive:
        found["primitive"] = primitive[:100]
    if value:
        found["value"] = value[:100]
    findings.append(found)


def is_primitive(dotted):
    return dotted in EXACT or dotted.startswith(PREFIXES)


def canonical(dotted):
    """The name under which a module is watched: `posix` is what `os` is made of."""
    head, _, rest = dotted.partition(".")
    if head in ("posix", "nt"):
        head = "os"
    if head in ("__builtins__", "__builtin__"):
        head = "builtins"
    return f"{head}.{rest}" if rest else head


class Names:
    """What the names of one file stand for; every binding counts, wherever it is made."""

    def __init__(self, nodes):
        self.known = {"__builtins__": {"builtins"}}
        self.stars = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.asname:
                        self.bind(alias.asname, alias.name)
                    else:
                        head = alias.name.split(".")[0]
                        self.bind(head, head)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    if alias.name == "*":
                        self.stars.add(canonical(node.module or ""))
                    else:
                        self.bind(alias.asname or alias.name, f"{node.module}.{alias.name}")
        # `o = os` and `run = o.system`, in whatever order they stand.
        assignments = [n for n in nodes if isinstance(n, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and n.value is not None]
        for _ in range(4):
            before = sum(map(len, self.known.values()))
            for node in assignments:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for dotted in self.resolve(node.value):
                    for target in targets:
                        if isinstance(target, ast.Name):
                            self.bind(target.id, dotted)
            if sum(map(len, self.known.values())) == before:
                break

    def bind(self, name, dotted):
        meanings = self.known.setdefault(name, set())
        if len(meanings) < 16:
            meanings.add(canonical(dotted))

    def resolve(self, node):
        """The dotted names that an expression can stand for."""
        tail = []
        while True:
            if isinstance(node, ast.Attribute):
                tail.append(node.attr)
                node = node.value
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "getattr"
                and len(node.args) >= 2
                and isinstance(node.args[1], ast.Constant)
                and isinstance(node.args[1].value, str)
            ):
                tail.append(node.args[1].value)
                node = node.args[0]
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                tail.append(node.slice.value)
                node = node.value
                if isinstance(node, ast.Attribute) and node.attr == "__dict__":
                    node = node.value
            elif isinstance(node, ast.Call) and self.imports(node):
                heads = {canonical(self.imports(node))}
                break
            elif isinstance(node, ast.Name):
                heads = set(self.known.get(node.id, ()))
                if node.id in EVALUATORS:
                    heads.add(f"builtins.{node.id}")
                for star in self.stars:
                    heads.add(f"{star}.{node.id}")
                break
            else:
                return set()
            if len(tail) > 8:
                return set()
        return {canonical(".".join([head, *reversed(tail)])) for head in heads}

    def imports(self, call):
        """The module that `__import__("x")` or `importlib.import_module("x")` gives."""
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if name in ("__import__", "import_module") and call.args and isinstance(call.args[0], ast.Constant):
            if isinstance(call.args[0].value, str):
                return call.args[0].value
        return None


def check(tree, file, lines, own):
    """Reports what one file does; gives the texts in it when it can load code from files."""
    nodes = list(ast.walk(tree))
    names = Names(nodes)
    data_module = False
    loads_files = False
    for node in nodes:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
            data_module = data_module or any(DATA_MODULE.search(f"{node.module}.{a.name}") for a in node.names)
        else:
            continue
        for module in modules:
            head = module.split(".")[0]
            data_module = data_module or bool(DATA_MODULE.search(module))
            loads_files = loads_files or head in LOADERS
            if head in DATABASES:
                report("static_analysis_raw_db_import", "error", file, node.lineno,
                       f"`{head}` is imported: use the data interface of the host", lines, head)
            if head in WARNED_IMPORTS:
                report("static_analysis_disallowed_primitive", "warning", file, node.lineno,
                       f"`{head}` is imported", lines, head)
    inner = set()
    for node in nodes:
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            inner.add(id(node.value))
    seen = set()
    for node in nodes:
        line = getattr(node, "lineno", 0)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript, ast.Call)) and not (
            isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store)
        ):
            if id(node) not in inner or isinstance(node, ast.Call):
                for dotted in names.resolve(node):
                    if is_primitive(dotted):
                        shown = dotted.removeprefix("builtins.")
                        if (line, shown) not in seen:
                            seen.add((line, shown))
                            report("static_analysis_disallowed_primitive", "error", file, line,
                                   f"`{shown}` may not be used", lines, shown)
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                dotted = canonical(f"{node.module}.{alias.name}")
                if is_primitive(dotted) and (line, dotted) not in seen:
                    seen.add((line, dotted))
                    report("static_analysis_disallowed_primitive", "error", file, line,
                           f"`{dotted}` may not be used", lines, dotted)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in WARNED_CALLS:
                loads_files = True
                report("static_analysis_disallowed_primitive", "warning", file, line,
                       f"`{node.func.id}` is called", lines, node.func.id)
            if data_module and isinstance(node.func, ast.Attribute) and node.func.attr in DATA_CALLS and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value not in own:
                    report("static_analysis_cross_command_access", "warning", file, line,
                           f"the data of `{first.value[:60]}` is used, which isn't a component of this package",
                           lines, node.func.attr, first.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value[:20000]):
            report("static_analysis_sql_mutation", "warning", file, line,
                   "the text looks like SQL that changes data", lines)
    if not loads_files:
        return set()
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and 0 < len(n.value) < 300}


def parse(path, file, surely_python):
    """The syntax tree and the lines of a file, or nothing."""
    def refuse(message, line=0):
        if surely_python:
            report("static_analysis_syntax_error", "error", file, line, message)
        return None

    try:
        if os.path.getsize(path) > FILE_CAP:
            return refuse(f"the file has more than {FILE_CAP} bytes and is not analysed")
        with open(path, "rb") as stream:
            content = stream.read(FILE_CAP + 1)
        tree = ast.parse(content, filename="<source>")
        return tree, content.decode("utf-8", "replace").splitlines()
    except SyntaxError as error:
        return refuse(f"not valid Python: {error.msg}", error.lineno or 0)
    except RecursionError:
        return refuse("not analysable: nested too deeply")
    except MemoryError:
        return refuse("not analysable: nested too deeply")
    except (ValueError, OSError, LookupError) as error:
        return refuse(f"not readable as Python: {type(error).__name__}")


def has_python_line(path):
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as stream:
            first = stream.read(200).split(b"\n")[0]
        return first.startswith(b"#!") and b"python" in first
    except OSError:
        return False


def main():
    root = os.path.realpath(sys.argv[1])
    own = set(sys.argv[2:])
    queue = []
    done = set()
    for directory, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(directory, name)
            lower = name.lower()
            file = os.path.relpath(path, root).encode("utf-8", "replace").decode("utf-8")
            if lower.endswith((".pyc", ".pyo")):
                report("static_analysis_syntax_error", "error", file, 0,
                       "compiled Python can't be analysed: leave it out of the source")
            elif lower.endswith((".py", ".pyw", ".pyi")) or has_python_line(path):
                queue.append((path, file, True))
    count = 0
    while queue:
        path, file, surely_python = queue.pop(0)
        if path in done:
            continue
        done.add(path)
        parsed = parse(path, file, surely_python)
        if parsed is None:
            continue
        count += 1
        # Code that is loaded by path, from a file with whatever suffix.
        for text in sorted(check(*parsed[:1], file, parsed[1], own)):
            for base in (root, os.path.dirname(path)):
                try:
                    other = os.path.realpath(os.path.join(base, text))
                    inside = other.startswith(root + os.sep) and os.path.isfile(other)
                except (OSError, ValueError):
                    continue
                if inside and other not in done and len(done) < 20000:
                    queue.append((other, os.path.relpath(other, root), False))
    findings.sort(key=lambda found: (found["file"], found["line"], found["code"]))
    print(json.dumps({"findings": findings, "files": count, "dropped": dropped}))


main()
