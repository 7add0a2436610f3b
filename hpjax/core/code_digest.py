"""Digests of Python code, equal in every process for equal code: what a trace does not show of a function.

A digest covers a function's bytecode, its constants, its defaults, what it closes over, and the global functions and
values that it reads, in turn. It covers no file name, line number, docstring or address.
"""

import dataclasses
import dis
import hashlib
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from hpjax.core.hashing import without_addresses
from hpjax.core.user_code import is_installed, is_library

# What holds a function of a class, and the names under which it does.
_HOLDERS = {
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    cached_property: ("func",),
}
_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")


def code_digest(*things: Any) -> str:
    """Returns a digest of functions, callable objects and values.

    Objects of the user's own classes count with the code of the class and with their attributes. Objects of installed
    packages count by what they print, and by their type alone where that would show an address; functions of installed
    packages count without the globals that they read, and those of hpjax and JAX by their names. Whatever has an
    ``__array__`` counts by its numbers.

    Example:
      >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 1), code_digest(lambda x: x + 2) == code_digest(len)
      (True, False)
    """
    digest = _CodeDigest()
    for thing in things:
        digest.add(thing)
    return digest.hexdigest()


def is_own_class(kind: type) -> bool:
    """Returns whether a class is of the user's own code: of no installed package."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    return kind.__module__ == "__main__" or module is None or not is_installed(file or "<built-in>")


class _CodeDigest:
    """A digest that grows as things are added; an object that was added before counts by its number."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        # The objects themselves, since the id of one that is collected may become that of another.
        self._seen: dict[int, tuple[int, Any]] = {}

    def hexdigest(self) -> str:
        return self._hash.hexdigest()[:16]

    def add(self, thing: Any) -> None:
        """Adds a value, or a function with its code."""
        if thing is None or thing is Ellipsis or isinstance(thing, bool | int | float | complex | str | bytes):
            self._text(type(thing).__name__, repr(thing))
        elif isinstance(thing, CodeType | tuple | frozenset):  # which of these are one object is chance
            self._parts(thing)
        elif id(thing) in self._seen:
            self._text("seen", self._seen[id(thing)][0])
        else:
            self._seen[id(thing)] = (len(self._seen), thing)
            self._parts(thing)

    def _text(self, *texts: Any) -> None:
        self._hash.update(repr(texts).encode())

    def _all(self, kind: str, things: Any) -> None:
        things = list(things)
        self._text(kind, len(things))
        for thing in things:
            self.add(thing)

    def _parts(self, thing: Any) -> None:
        """Adds what an object consists of."""
        if isinstance(thing, CodeType):
            self._code(thing)
        elif isinstance(thing, FunctionType):
            self._function(thing)
        elif isinstance(thing, partial):
            self._all("partial", (thing.func, thing.args, thing.keywords))
        elif isinstance(thing, MethodType):
            self._all("method", (thing.__func__, thing.__self__))
        elif isinstance(thing, tuple | list | deque):
            self._all(type(thing).__name__, thing)
        elif isinstance(thing, set | frozenset):  # in the order of their digests: that of strings is random
            self._text("set", sorted(map(code_digest, thing)))
        elif isinstance(thing, Mapping):
            self._all("mapping", [part for item in thing.items() for part in item])
        elif isinstance(thing, ModuleType):
            self._text("module", thing.__name__)
        elif isinstance(thing, BuiltinFunctionType):
            held = () if isinstance(thing.__self__, ModuleType | None) else [thing.__self__]
            self._all(f"{thing.__module__}.{thing.__qualname__}", held)
        elif isinstance(thing, type):
            self._class(thing)
        elif hasattr(thing, "__wrapped__"):  # of functools.lru_cache, jax.jit and the like
            self._all(type(thing).__name__, [thing.__wrapped__])
        elif hasattr(thing, "__array__"):
            self._array(thing)
        else:
            self._object(thing)

    def _function(self, function: FunctionType) -> None:
        file = function.__code__.co_filename
        known = is_installed(file) and is_library(file)  # a name such as <string> is of neither
        self._text("function", f"{function.__module__}.{function.__qualname__}" if known else "")
        if not known:
            self._code(function.__code__, function.__doc__)
        self._all("given", (function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # a cell that nothing was put into yet
                self._text("empty")
        if not is_installed(file):
            for name, value in sorted(_globals(function), key=lambda each: each[0]):
                self._text("global", name)
                self.add(value)

    def _code(self, code: CodeType, doc: str | None = None) -> None:
        constants = code.co_consts[1:] if doc is not None and code.co_consts[:1] == (doc,) else code.co_consts
        self._text(code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        self._all("constants", constants)

    def _class(self, kind: type) -> None:
        self._text("class", "" if is_own_class(kind) else f"{kind.__module__}.{kind.__qualname__}")
        for base in filter(is_own_class, kind.__mro__):
            for name, part in sorted(vars(base).items()):
                held = [getattr(part, each) for each in _HOLDERS.get(type(part), ())] or [part]
                if not name.startswith("__") or isinstance(held[0], FunctionType):
                    self._all(name, held)

    def _array(self, thing: Any) -> None:
        try:
            array = np.asarray(thing)
        except Exception:  # of a device that NumPy cannot read, or a tracer
            self._text(type(thing).__name__)
            return
        if array.dtype.hasobject:
            self._all(f"{array.shape}", array.reshape(-1).tolist())
        else:
            self._text("array", array.shape, str(array.dtype))
            self._hash.update(np.ascontiguousarray(array).tobytes())

    def _object(self, thing: Any) -> None:
        self.add(type(thing))
        own = is_own_class(type(thing))
        if dataclasses.is_dataclass(thing) and type(thing).__module__.startswith("hpjax."):
            # Such as a Data, whose repr has no values; not what it computed of itself since.
            self._all("fields", [getattr(thing, each.name) for each in dataclasses.fields(thing)])
            return
        for name, value in attributes(thing) if own or callable(thing) else ():
            if own or callable(value):  # the rest of what an installed class holds may be caches and places in files
                self._all(name, [value])
        shown = "" if own else repr(thing)
        self._text(shown if shown == without_addresses(shown) else "")


def attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yields name and value of the attributes of an object, those in slots among them."""
    names = {*getattr(thing, "__dict__", {})}
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            names.add(f"_{kind.__name__.lstrip('_')}{name}" if private else name)
    return ((name, getattr(thing, name)) for name in sorted(names) if hasattr(thing, name))


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yields name and value of the globals that a function reads, nested functions included.

    Of a module of the user's own they are the attributes that the function may read.
    """
    codes, scope = [function.__code__], function.__globals__
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in {step.argval for step in dis.get_instructions(code) if step.opname in _GLOBALS}:
            if name not in scope:
                continue
            value = scope[name]
            if isinstance(value, ModuleType) and not is_installed(getattr(value, "__file__", None) or "<built-in>"):
                yield from ((f"{name}.{each}", getattr(value, each)) for each in code.co_names if hasattr(value, each))
            else:
                yield name, value
