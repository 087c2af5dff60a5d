"""A pickle stream in, plain values out: the stream is interpreted here, and nothing that it names
is ever looked up.

Python's own unpickler imports and calls what the stream says. This one knows tuples, lists, dicts,
sets, strings and numbers; every name goes to ``Answers.name``, which knows it or refuses it, and
every call of a name to ``Answers.call``. The reading of opcodes and their arguments is left to the
standard library's ``pickletools``.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

# A stream can remember a value and use it again in every byte that follows: what takes time by size
# is bounded.
MOST_OPCODES = 2_000_000
LONGEST_NAME = 500  # letters
# parts of a tuple; each of them SIMPLE, since hashing nested tuples can be made to take for ever
LONGEST_KEY = 8
SIMPLE = (str, bytes, int, float, bool, type(None))


@dataclass(frozen=True)
class Name:
    """A name of the stream, ``module.name``: no object, only the two words."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """What stands for an object that we have no use for: whatever is done to it is let go."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}, not loaded>"


class Answers(Protocol):
    """What the stream's names mean."""

    def name(self, name: Name) -> Any:
        """The value that stands for a name, often the name itself. Errors: CheckpointError refuses
        it.
        """

    def call(self, called: Any, arguments: tuple) -> Any:
        """The result of calling such a value."""

    def state(self, value: Any, state: Any) -> None:
        """Give an object its state, or let it go."""

    def stored(self, key: Any) -> Any:
        """The value that lies outside the stream under ``key`` (a persistent id)."""


PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}  # fmt: skip
FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}
MARK = object()


def run(stream: BinaryIO, answers: Answers) -> Any:
    """The one value of a pickle stream; the stream is left behind its end.

    Errors: CheckpointError for a name that is refused; ValueError, TypeError, KeyError, IndexError,
        AttributeError and others for a stream that is broken.
    """
    machine = _Machine(answers)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name == "STOP":
            return machine.pop()
        if count > MOST_OPCODES:
            raise ValueError("it is longer than any checkpoint's")
        machine.step(opcode.name, argument)
    raise ValueError("it has no end")


class _Machine:
    """The stack and the memo of one stream."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}  # a dict, so that a large index costs nothing

    def step(self, name: str, argument: Any) -> None:
        if name in PUSHED:
            self.stack.append(argument)
        elif name in FRESH:
            self.stack.append(FRESH[name]())
        elif name in TUPLES:
            self.stack.append(self.tuple_of(TUPLES[name]))
        elif name in STEPS:
            STEPS[name](self, argument)
        elif name not in IGNORED:
            raise ValueError(f"it uses {name}, which no checkpoint needs")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a mark stands where a value should")
        return value

    def top(self) -> Any:
        return self.stack[-1]

    def tuple_of(self, count: int) -> tuple:
        return tuple([self.pop() for _ in range(count)][::-1])

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken away together with the mark."""
        found = []
        while (value := self.stack.pop()) is not MARK:
            found.append(value)
        return found[::-1]

    def memoize(self, index: int | None) -> None:
        if self.top() is MARK:
            raise ValueError("a mark stands where a value should")
        self.memo[len(self.memo) if index is None else index] = self.top()

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is not text")
        if len(module) + len(name) > LONGEST_NAME:
            raise ValueError("a name is longer than any name")
        self.stack.append(self.answers.name(Name(module, name)))

    def call(self, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise TypeError("arguments are not a tuple")
        self.stack.append(self.answers.call(self.pop(), arguments))

    def extend(self, values: list[Any]) -> None:
        if isinstance(self.top(), list):
            self.top().extend(values)
        elif not isinstance(self.top(), Inert):
            raise TypeError("something is appended to what is no list")

    def put(self, pairs: list[Any]) -> None:
        if isinstance(self.top(), dict):
            self.top().update(dict_of(pairs))
        elif not isinstance(self.top(), Inert):
            raise TypeError("something is set in what is no dict")

    def add(self, values: list[Any]) -> None:
        if not isinstance(self.top(), set):
            raise TypeError("something is added to what is no set")
        self.top().update(map(key, values))

    def build(self) -> None:
        state = self.pop()
        self.answers.state(self.top(), state)


def key(value: Any) -> Any:
    """``value``, if it can be the key of a dict."""
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > LONGEST_KEY or not all(isinstance(part, (*SIMPLE, Name)) for part in parts):
        raise TypeError(f"a {type(value).__name__} is used as a key")
    if any(isinstance(part, int) and abs(part) >= 2**64 for part in parts):
        raise ValueError("a number is too large to be a key")
    return value


def dict_of(pairs: list[Any]) -> dict[Any, Any]:
    """``[key, value, key, value]`` as a dict."""
    if len(pairs) % 2:
        raise ValueError("a key has no value")
    return {key(name): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


def _call_of_marked(machine: _Machine, values: list[Any]) -> None:
    """OBJ: the class and its arguments lie above the mark."""
    machine.stack.append(values[0])
    machine.call(tuple(values[1:]))


def _named_call(machine: _Machine, argument: str) -> None:
    """INST: a name in the stream's text, its arguments above the mark."""
    values = machine.marked()
    machine.name(*argument.split(" ", 1))
    machine.call(tuple(values))


def _new_with_keywords(machine: _Machine) -> None:
    """NEWOBJ_EX: keywords are of no use to anything that we build."""
    if machine.pop():
        raise ValueError("an object is made with keywords")
    machine.call(machine.pop())


def _pop(machine: _Machine) -> None:
    """POP takes a value or, as Python's own unpickler allows, a mark."""
    machine.stack.pop()


STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda m, _: m.stack.append(MARK),
    "POP": lambda m, _: _pop(m),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.stack.append(m.top()),
    "PUT": lambda m, index: m.memoize(index),
    "BINPUT": lambda m, index: m.memoize(index),
    "LONG_BINPUT": lambda m, index: m.memoize(index),
    "MEMOIZE": lambda m, _: m.memoize(None),
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.marked())),
    "LIST": lambda m, _: m.stack.append(m.marked()),
    "DICT": lambda m, _: m.stack.append(dict_of(m.marked())),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(map(key, m.marked()))),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "SETITEM": lambda m, _: m.put(list(m.tuple_of(2))),
    "SETITEMS": lambda m, _: m.put(m.marked()),
    "ADDITEMS": lambda m, _: m.add(m.marked()),
    "GLOBAL": lambda m, text: m.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.tuple_of(2)),
    "REDUCE": lambda m, _: m.call(m.pop()),
    "NEWOBJ": lambda m, _: m.call(m.pop()),
    "NEWOBJ_EX": lambda m, _: _new_with_keywords(m),
    "OBJ": lambda m, _: _call_of_marked(m, m.marked()),
    "INST": _named_call,
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, text: m.stack.append(m.answers.stored(text)),
    "BINPERSID": lambda m, _: m.stack.append(m.answers.stored(m.pop())),
}
