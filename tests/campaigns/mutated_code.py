"""Mutants of a program: one small change each, as a person might make by mistake.

They are fewer than those of published tools, which put eleven other operators in place of each:
an operator changes into the one that is most like it, so that a survivor says something.
"""

import ast
from collections.abc import Iterator
from typing import NamedTuple

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
# Only the border moves: a condition turned round is noticed more easily.
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_PAIRS = (
    "all any",
    "argmax argmin",
    "ceil floor",
    "cos sin",
    "logical_and logical_or",
    "max min",
    "maximum minimum",
    "ones zeros",
    "ones_like zeros_like",
)
FUNCTIONS = {one: other for pair in _PAIRS for one, other in [pair.split(), pair.split()[::-1]]}
FUNCTIONS |= {"sum": "mean", "mean": "sum"}
# Of these only what they were given is left.
DROPPED = {"abs", "astype", "clip", "conj", "round", "sorted", "sqrt", "square", "stop_gradient"}


class Mutant(NamedTuple):
    """A changed program.

    Attributes:
        line: that changed, counted from 1.
        before, after: the changed expression or statement.
        code: the whole program.
    """

    line: int
    before: str
    after: str
    code: str


def mutants(code: str) -> list[Mutant]:
    """All mutants in the order of their lines.

    Annotations, strings, docstrings among them, and what is raised are left as they are: they say
    nothing about what a program computes.
    """
    data = code.encode("utf-8")
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = {}
    for node in _computing(ast.parse(code)):
        for part, after in _changes(node):
            begin = starts[part.lineno - 1] + part.col_offset
            end = starts[part.end_lineno - 1] + part.end_col_offset
            before = data[begin:end].decode("utf-8")
            # An operand of another expression stays one.
            text = f"({after})" if isinstance(part, ast.expr) else after
            mutant = (data[:begin] + text.encode("utf-8") + data[end:]).decode("utf-8")
            # Several operators may give one program, and some are no programs.
            if _parses(mutant):
                essence = ast.dump(ast.parse(mutant))
                found.setdefault(essence, Mutant(part.lineno, before, after, mutant))
    return sorted(found.values(), key=lambda one: one.line)


def _parses(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _computing(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a program that compute."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Raise) or not isinstance(child, ast.AST):
                continue
            # In an f-string a place has no position of its own before Python 3.12.
            if isinstance(child, ast.JoinedStr):
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _computing(child)


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Parts of an expression or a statement, and what can stand in place of each."""
    match node:
        case ast.If(test) | ast.IfExp(test) if not _turned_already(test):
            yield test, f"not ({ast.unparse(test)})"
        case ast.expr() | ast.stmt():
            for after in _changed(node):
                yield node, after


def _turned_already(test: ast.expr) -> bool:
    """Whether another change makes it the opposite."""
    match test:
        case ast.UnaryOp(ast.Not()):
            return True
        case ast.Compare(_, [op]):
            return isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn)
    return False


def _changed(node: ast.expr | ast.stmt) -> Iterator[str]:
    """What can stand in place of a whole expression or statement."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield ast.unparse(ast.BinOp(left, OPERATORS[type(op)](), right))
        case ast.AugAssign(target, op, value) if type(op) in OPERATORS:
            yield ast.unparse(ast.AugAssign(target, OPERATORS[type(op)](), value))
        case ast.Compare(left, ops, comparators):
            for place, op in enumerate(ops):
                others = [*ops[:place], COMPARISONS[type(op)](), *ops[place + 1 :]]
                yield ast.unparse(ast.Compare(left, others, comparators))
        case ast.BoolOp(op, values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield ast.unparse(ast.BoolOp(other, values))
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield ast.unparse(operand)
        case ast.Constant(bool() as value):
            yield str(not value)
        case ast.Constant(int() as value):
            yield str(value + 1)
        case ast.Constant(float() as value):
            yield str(2 * value if value else 1.0)
        case ast.Assign([ast.Name(name)], value) if _reads(value, name):
            yield "pass"
        case ast.Expr(ast.Call()):
            yield "pass"
        case ast.Call():
            yield from _other_calls(node)


def _other_calls(node: ast.Call) -> Iterator[str]:
    """Calls without one keyword, of the opposite function, and of none."""
    function, args, keywords = node.func, node.args, node.keywords
    for place in range(len(keywords)):
        yield ast.unparse(ast.Call(function, args, keywords[:place] + keywords[place + 1 :]))
    match function:
        case ast.Name(name):
            owner, opposite = None, ast.Name(FUNCTIONS.get(name, ""))
        case ast.Attribute(owner, name):
            opposite = ast.Attribute(owner, FUNCTIONS.get(name, ""))
        case _:
            return
    if name in FUNCTIONS:
        yield ast.unparse(ast.Call(opposite, args, keywords))
    if name == "where" and len(args) == 3:
        yield ast.unparse(ast.Call(function, [args[0], args[2], args[1]], keywords))
    if name in DROPPED:
        method = owner is not None and ast.unparse(owner) not in ("jax", "jax.lax", "jnp", "np")
        yield ast.unparse(owner if method else args[0])


def _reads(value: ast.expr, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(value))
