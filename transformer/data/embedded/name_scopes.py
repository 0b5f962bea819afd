"""What the names in a Python function stand for, by Python's rules of scopes.

The reference is "Naming and binding" in Python's language reference, section 4.2.
"""

import ast
from collections.abc import Iterator

# `PARAMETER`, `LOCAL`, ...; empty for what no function binds.
Meaning = str
Place = tuple[int, int]

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def meanings(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[Place, Meaning]:
    """The meaning of each name of a function that has a place in its tree.

    Names are told by line, from 1, and column, from 0: parameters, variables, attributes (`METHOD`
    if they are called) and keywords of arguments. Names that neither this function nor one in it
    binds have an empty meaning.
    """
    found: dict[Place, Meaning] = {}
    _visit(function, [], found)
    return found


def bound_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> frozenset[str]:
    """The local variables of a function."""
    return frozenset(name for name, kind in _scope(function).items() if kind == "LOCAL")


def global_names(tree: ast.Module) -> dict[str, Meaning]:
    """What a file binds its names to: `FUNCTION`, `CLASS`, `MODULE` (import), or `GLOBAL`."""
    found: dict[str, Meaning] = {}
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found[node.name] = "FUNCTION"
            case ast.ClassDef():
                found[node.name] = "CLASS"
            case ast.Import():
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = "MODULE"
            case ast.ImportFrom():
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, "GLOBAL")
            case ast.Name(ctx=ast.Store()):
                found.setdefault(node.id, "GLOBAL")
            case ast.Lambda():
                pass
            case _:
                waiting[:0] = ast.iter_child_nodes(node)
    return found


def _visit(node: ast.AST, scopes: list[dict[str, Meaning]], found: dict[Place, Meaning]) -> None:
    """Adds the meanings of names in a node; `scopes` are those around it, the innermost last."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            inner = [*scopes, _scope(node)]
            body = node.body if isinstance(node.body, list) else [node.body]
            _visit_arguments(node, scopes, inner, found)
            for child in body:
                _visit(child, inner, found)
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            names = (name for each in node.generators for name in _stored(each.target))
            inner = [*scopes, dict.fromkeys(names, "LOCAL")]
            for child in ast.iter_child_nodes(node):
                _visit(child, inner, found)
        case ast.Name():
            kinds = (scope[node.id] for scope in reversed(scopes) if node.id in scope)
            found[node.lineno, node.col_offset] = next(kinds, "")
        case ast.Call(func=ast.Attribute()):
            _visit(node.func, scopes, found)
            found[_attribute_place(node.func)] = "METHOD"
            for child in (*node.args, *node.keywords):
                _visit(child, scopes, found)
        case ast.Attribute():
            _visit(node.value, scopes, found)
            found[_attribute_place(node)] = "ATTRIBUTE"
        case _:
            if isinstance(node, ast.keyword) and node.arg is not None:
                found[node.lineno, node.col_offset] = "KEYWORD"
            for child in ast.iter_child_nodes(node):
                _visit(child, scopes, found)


def _visit_arguments(
    function: _Function,
    scopes: list[dict[str, Meaning]],
    inner: list[dict[str, Meaning]],
    found: dict[Place, Meaning],
) -> None:
    """Parameters, and their defaults and types, which are read in the scopes around."""
    for argument in _parameters(function):
        found[argument.lineno, argument.col_offset] = "PARAMETER"
        if argument.annotation is not None:
            _visit(argument.annotation, scopes, found)
    for default in (*function.args.defaults, *function.args.kw_defaults):
        if default is not None:
            _visit(default, scopes, found)
    if not isinstance(function, ast.Lambda) and function.returns is not None:
        _visit(function.returns, scopes, found)


def _attribute_place(node: ast.Attribute) -> Place:
    return node.end_lineno or 0, (node.end_col_offset or 0) - len(node.attr)


def _parameters(function: _Function) -> Iterator[ast.arg]:
    arguments = function.args
    yield from (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    yield from (each for each in (arguments.vararg, arguments.kwarg) if each is not None)


def _scope(function: _Function) -> dict[str, Meaning]:
    """The names that a function binds, without those of functions in it."""
    found: dict[str, Meaning] = {}
    waiting: list[ast.AST] = list(function.body) if isinstance(function.body, list) else []
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found[node.name] = "FUNCTION"
            case ast.Lambda():
                pass
            case ast.Name(ctx=ast.Store()):
                found[node.id] = "LOCAL"
            case _:
                if isinstance(node, ast.ExceptHandler) and node.name:
                    found[node.name] = "LOCAL"
                if isinstance(node, _COMPREHENSIONS):
                    # Its variables are its own, except those of `:=`.
                    waiting += (
                        each.target for each in ast.walk(node) if isinstance(each, ast.NamedExpr)
                    )
                else:
                    waiting += ast.iter_child_nodes(node)
    return found | {argument.arg: "PARAMETER" for argument in _parameters(function)}


def _stored(target: ast.expr) -> Iterator[str]:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
