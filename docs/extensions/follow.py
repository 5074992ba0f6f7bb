"""Find all code of a package that a name uses, and hash it. Reads source text, imports nothing.

A definition is a class, a function or an assignment in a module. It uses the names of its module
that occur in its code, and so on, through imports too. The statements of its module that define
nothing count as used. ``import_module(f".{name}", __name__)`` may use every module of its package,
and ``f"{__package__}.name"`` uses that module. Not followed: annotations, and other strings.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

PLAIN = ""  # the name of a module's statements that define nothing


class Definition(NamedTuple):
    """What a name in a module is."""

    module: Path
    name: str


class Module(NamedTuple):
    """The names of a module: their statements, and {name: (file or folder, name there)}."""

    defined: dict[str, list[ast.AST]]
    imported: dict[str, tuple[Path, str]]


class Code:
    """The code of a package; each module is read when it is needed."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self._modules: dict[Path, Module] = {}
        self._uses: dict[Definition, set[Definition]] = {}
        self._hashes: dict[Definition, str] = {}

    def hash_of(self, name: str) -> str | None:
        """Return the hash of all code that a full name, such as ``package.fit``, uses.

        A module that is passed on as an object uses all its names. None for names of other
        packages, and for names that do not exist.
        """
        first, *parts = name.split(".")
        if first != self.package.name:
            return None
        found = self._resolved(parts, self.package / "__init__.py")
        if found is None:
            return None
        reached = set[Definition]()
        todo = self._all(found) if isinstance(found, Path) else {found}
        while todo:
            reached |= todo
            todo = set[Definition]().union(*map(self._used, todo)) - reached
        hashes = sorted({self._hash(definition) for definition in reached})
        return sha256("".join(hashes).encode()).hexdigest()[:16]

    def _hash(self, definition: Definition) -> str:
        if definition not in self._hashes:
            nodes = self._module(definition.module).defined[definition.name]
            self._hashes[definition] = "".join(map(source_hash, nodes))
        return self._hashes[definition]

    def _used(self, definition: Definition) -> set[Definition]:
        """Return what a definition uses directly."""
        if definition not in self._uses:
            path, name = definition
            module = self._module(path)
            found = {Definition(path, PLAIN)} if PLAIN in module.defined else set[Definition]()
            for node in module.defined[name]:
                names = module.imported | self._imports(ast.walk(node), path)
                found |= self._by_name(node, path)
                for first, *rest in chains(node):
                    if first in module.defined:
                        found.add(Definition(path, first))
                    elif first in names:
                        target = self._imported(*names[first])
                        if isinstance(target, Path):
                            target = self._resolved(rest, target)
                        if isinstance(target, Path):
                            found |= self._all(target)
                        elif target:
                            found.add(target)
            self._uses[definition] = found
        return self._uses[definition]

    def _by_name(self, node: ast.AST, path: Path) -> set[Definition]:
        """Return what a definition imports, or starts as a process, by a name in a string."""
        files: set[Path] = set()
        for inner in ast.walk(node):
            match inner:
                case ast.Call(
                    func=ast.Name("import_module"),
                    args=[ast.JoinedStr([ast.Constant("."), *_]), *_],
                ):
                    files |= set(path.parent.glob("*.py"))
                case ast.JoinedStr(
                    [ast.FormattedValue(ast.Name("__package__")), ast.Constant(str(name))]
                ):
                    files |= {path.with_name(f"{name.removeprefix('.')}.py")}
        return set[Definition]().union(*(self._all(file) for file in files if file.exists()))

    def _all(self, path: Path) -> set[Definition]:
        """Return all names of a module, without its own modules."""
        module = self._module(path)
        found = {self._named(name, path) for name in (*module.defined, *module.imported)}
        return {each for each in found if isinstance(each, Definition)}

    # --- Where a name is defined ---

    def _resolved(self, parts: list[str], path: Path) -> Definition | Path | None:
        """Return what ``parts`` mean in a module; attributes of a definition belong to it."""
        for part in parts:
            found = self._named(part, path)
            if not isinstance(found, Path):
                return found
            path = found
        return path

    def _named(self, name: str, path: Path) -> Definition | Path | None:
        module = self._module(path)
        if name in module.defined:
            return Definition(path, name)
        if name in module.imported and _file(module.imported[name][0]) != path:
            return self._imported(*module.imported[name])
        return _file(path.parent / name) if path.name == "__init__.py" else None

    def _imported(self, base: Path, name: str) -> Definition | Path | None:
        """Return what ``from base import name`` imports, or ``import base`` without a name."""
        path = _file(base)
        return self._named(name, path) if path and name else path

    # --- Modules ---

    def _module(self, path: Path) -> Module:
        if path not in self._modules:
            defined: dict[str, list[ast.AST]] = {}
            nodes = list(_statements(ast.parse(path.read_text("utf-8"))))
            for node in nodes:
                for name in _bound(node):
                    defined.setdefault(name, []).append(node)
            self._modules[path] = Module(defined, self._imports(iter(nodes), path))
        return self._modules[path]

    def _imports(self, nodes: Iterator[ast.AST], path: Path) -> dict[str, tuple[Path, str]]:
        """Return what these statements import of the package."""
        found: dict[str, tuple[Path, str]] = {}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                parts = node.module.split(".") if node.module else []
                root = path.parents[node.level - 1] if node.level else self.package.parent
                base = root.joinpath(*parts)
                if base.is_relative_to(self.package):
                    found |= {a.asname or a.name: (base, a.name) for a in node.names}
        return found


def code_of(package: Path) -> Code:
    """Return the code of a package; the same object until one of its files changes."""
    files = [(path, path.stat()) for path in sorted(package.rglob("*.py"))]
    return _code_of(package, tuple((path, s.st_mtime_ns, s.st_size) for path, s in files))


@cache
def _code_of(package: Path, _state: object) -> Code:
    return Code(package)


def _file(base: Path) -> Path | None:
    """Return the file of the module or package at this path."""
    files = (base / "__init__.py", base.with_name(f"{base.name}.py"))
    return next((file for file in files if file.exists()), None)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a module, with those inside ``with``, ``if`` and ``try``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.With | ast.If | ast.Try | ast.ExceptHandler):
            yield from _statements(child)
        elif isinstance(child, ast.stmt):
            yield child


def _bound(node: ast.AST) -> list[str]:
    """Return the names that a statement of a module defines; ``PLAIN`` if it is none of these."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return []
        case ast.Assign(targets=targets):
            inside = [n for target in targets for n in ast.walk(target)]
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            inside = list(ast.walk(target))
        case _:
            inside = []
    names = [n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return names or [PLAIN]


def chains(node: ast.AST) -> Iterator[list[str]]:
    """Yield the names that code reads, with their attributes: ["layers", "conv"]."""
    if parts := _dotted(node):
        yield parts
        return
    for field, value in ast.iter_fields(node):
        if field not in {"annotation", "returns"}:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from chains(child)


def _dotted(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            return [name]
        case ast.Attribute(value=value, attr=name):
            before = _dotted(value)
            return [*before, name] if before else []
    return []


# --- Hashes -------------------------------------------------------------------------------------


def source_hash(node: ast.AST) -> str:
    """Return the hash of a definition without its docstrings and comments.

    The text that is hashed is the same on every Python: fields that only some versions have are
    empty in this package's code, and empty fields do not count.
    """
    return sha256(repr(_canonical(node)).encode()).hexdigest()[:16]


def _canonical(value: object) -> object:
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if not isinstance(value, ast.AST):
        return value
    fields = dict(ast.iter_fields(value))
    body = fields.get("body")
    if isinstance(body, list) and body and _is_docstring(body[0]):
        fields["body"] = body[1:]
    kept = [(name, _canonical(item)) for name, item in fields.items() if item not in (None, [])]
    return (type(value).__name__, *sorted(kept))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)
