"""The jobs of a sandboxed process: run a program, answer calls of a program's or a module's functions, run asserts.

Messages go over one socket, each as a line of JSON. Whatever a program does to this module, to the socket or to the
built-in types happens in its own process and can change only its own output: another process decides what is right.
"""

import ast
import atexit
import builtins
import importlib
import itertools
import json
import os
import random
import sys
import threading
import types
from contextlib import suppress
from traceback import walk_tb
from typing import Any

from inside.values import decode, encode, to_line  # type: ignore[import-not-found]

MOST_REASON = 300


class Channel:
    """The socket to the process that judges."""

    def __init__(self, handle: int) -> None:
        self._input, self._output = os.fdopen(handle, "rb"), os.fdopen(handle, "wb", closefd=False)

    def receive(self) -> Any:
        """The next message; the process ends if there is none."""
        line = self._input.readline()
        if not line:
            os._exit(1)
        return json.loads(line)

    def send(self, message: Any) -> None:
        self._output.write(to_line(message))
        self._output.flush()


def run(channel: Channel) -> None:
    """Do the one job that the channel sends, and end the process."""
    job = channel.receive()
    random.seed()
    try:
        {"program": _program, "calls": _calls, "script": _script}[job["kind"]](job, channel)
    except BaseException as error:  # any exception of the program ends the process as a failure
        channel.send({"failed": describe(error)})
        os._exit(1)
    os._exit(0)


def describe(error: BaseException) -> str:
    """One line about an exception, even if getting its text raises another exception."""
    try:
        line = _last_line(error, "program.py")
        return f"{type(error).__name__}: {error}{f' (line {line})' if line else ''}"[:MOST_REASON]
    except BaseException:
        return "an exception without a text"


def _last_line(error: BaseException, file: str) -> int:
    """The last line of a file that an exception passed through; 0 if there is none."""
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return lines[-1] if lines else 0


def load(program: str, name: str) -> dict[str, Any]:
    """Run a program as a module with this name, and return its namespace."""
    module = types.ModuleType(name)
    module.__dict__["__file__"] = "program.py"
    sys.modules[name] = module
    sys.argv = ["program.py"]
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # site would define these, but it is not loaded
    exec(compile(program, "program.py", "exec"), module.__dict__)
    return module.__dict__


def _program(job: dict[str, Any], channel: Channel) -> None:
    """Run a program on its standard input to its end, and handle threads, exit functions and open files as usual.

    An exit code other than 0 is a failure, as in a shell.
    """
    code: object = None
    try:
        load(job["program"], "__main__")
    except SystemExit as error:
        code = error.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    vars(sys.modules["__main__"]).clear()
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    if code not in (None, 0, False):
        raise SystemExit(code)


def _calls(job: dict[str, Any], channel: Channel) -> None:
    """Run a program as an imported module (not as ``"__main__"``), then answer requests: names, attributes, calls.

    The job may name a preloaded module in place of a program.
    """
    objects: dict[int, Any] = {}

    def keep(value: Any) -> int:
        objects[len(objects)] = value
        return len(objects) - 1

    names = vars(importlib.import_module(job["module"])) if "module" in job else load(job["program"], "program")
    channel.send({"loaded": True})
    while True:
        request = channel.receive()
        try:
            target = objects[request["handle"]] if "handle" in request else _named(names, request["name"])
            if "attribute" in request:
                target = getattr(target, request["attribute"])
            if "set" in request:
                setattr(target, request["set"], decode(request["value"], objects.__getitem__))
                target = None
            elif "arguments" in request:
                arguments, keywords = decode(request["arguments"], objects.__getitem__)
                target = target(*arguments, **keywords)
            answer = {"value": encode(target, keep)}
        except (Exception, SystemExit) as error:
            answer = {"raised": _builtin_kind(error), "text": _text(error), "description": describe(error)}
        channel.send(answer)


def _builtin_kind(error: BaseException) -> str:
    """The name of an exception's nearest built-in class, because the tester does not know the program's own classes."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def _text(error: BaseException) -> str:
    try:
        argument = error.args[0] if isinstance(error, KeyError) and error.args else error
        return str(argument)[:MOST_REASON]
    except BaseException:
        return ""


def _named(names: dict[str, Any], name: str) -> Any:
    """A function of the program or, if there is none, a method of its class ``Solution``."""
    if name in names:
        return names[name]
    solution = names.get("Solution")
    if solution is not None and hasattr(solution, name):
        return getattr(solution(), name)
    raise NameError(f"the program defines no {name!r}")


# -- Assert scripts ----------------------------------------------------------------------------------------------------


def _script(job: dict[str, Any], channel: Channel) -> None:
    """Run the dataset's own assert script. Names that it does not define are taken from the program, which runs in
    another process."""
    reached_asserts = itertools.count()
    names: dict[str, Any] = {"__name__": "__main__", _COUNT: reached_asserts.__next__}
    try:
        tree = ast.parse(job["script"], "script.py")
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            raise _UnusableTestsError("the script asserts nothing")
        names["__builtins__"] = _Names(channel, tree)
        exec(compile(job["setup"], "setup.py", "exec"), names)
    except (Exception, _UnusableTestsError) as error:  # before the program had any part in it
        channel.send({"unusable": describe(error)})
        return
    if job["entry_point"] is not None:
        names[job["entry_point"]] = RemoteObject(channel, {"name": job["entry_point"]})
    try:
        exec(compile(_count_asserts(tree), "script.py", "exec"), names)
    except _UnusableTestsError as error:
        channel.send({"unusable": str(error)})
    except _RemoteError as error:
        channel.send({"wrong": str(error)})
    except (Exception, SystemExit) as error:
        channel.send({"wrong": _describe_assert(error, job["script"])})
    else:
        channel.send({"passed": next(reached_asserts)})


class _UnusableTestsError(BaseException):
    """The tests themselves can't be run, whatever the program: this is the dataset's fault."""


class _Names(dict[str, Any]):
    """The built-in names. A name that neither they nor the scripts define is taken from the program.

    There is one exception: a script that uses ``math.isclose(...)`` without an import means the standard library. A
    program's own ``math`` would get the expected value, and could say that it is close.
    """

    def __init__(self, channel: Channel, script: ast.Module) -> None:
        super().__init__(vars(builtins))
        self._channel = channel
        calls = [node.func for node in ast.walk(script) if isinstance(node, ast.Call)]
        called = {function.id for function in calls if isinstance(function, ast.Name)}
        self._modules = sys.stdlib_module_names - called

    def __missing__(self, name: str) -> Any:
        if name.startswith("__"):
            raise KeyError(name)
        return importlib.import_module(name) if name in self._modules else RemoteObject(self._channel, {"name": name})


_COUNT = "__count_assert__"


def _count_asserts(tree: ast.Module) -> ast.Module:
    """The script with a counting call before each assert: a script that reaches no assert must not pass."""

    class Counter(ast.NodeTransformer):
        def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
            call = ast.Expr(ast.Call(ast.Name(_COUNT, ast.Load()), [], []))
            return [ast.copy_location(call, node), node]

    return ast.fix_missing_locations(Counter().visit(tree))


def _describe_assert(error: BaseException, script: str) -> str:
    line, lines = _last_line(error, "script.py"), script.split("\n")
    text = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return f"{type(error).__name__} in {text!r}"[:MOST_REASON]


class _RemoteError(BaseException):
    """The program did not answer. No ``except Exception`` of a test script may catch this."""


def _ask(remote: "RemoteObject", **request: Any) -> Any:
    """The program's answer to a request about one of its objects: by default, for the object itself."""
    channel = remote._channel
    channel.send({"ask": remote._place | request})
    answer = channel.receive()
    if "raised" in answer:
        raise _raised(answer["raised"], answer["text"])
    if "value" not in answer:
        raise _RemoteError("the program is gone")
    try:
        return decode(answer["value"], lambda number: RemoteObject(channel, {"handle": number}))
    except ValueError as error:
        raise _RemoteError(f"the program returned no plain value ({error})") from None


def _raised(name: str, text: str) -> BaseException:
    """The program's exception, as the built-in exception with this name."""
    kind = getattr(builtins, name, None)
    if kind in (StopIteration, StopAsyncIteration):  # these would end the script's own loops as if they were done
        kind = RuntimeError
    if isinstance(kind, type) and issubclass(kind, Exception):
        with suppress(TypeError):
            return kind(text)
    return _RemoteError(text)


class RemoteObject:
    """An object in the program's process: it can be called and has attributes, and is equal only to itself."""

    def __init__(self, channel: Channel, place: dict[str, Any]) -> None:
        self.__dict__["_channel"], self.__dict__["_place"] = channel, place

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return _ask(self, arguments=encode((arguments, keywords), _handle))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ask(self, attribute=name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, set=name, value=encode(value, _handle))


def _handle(value: Any) -> int:
    """The number of a remote object. An object that is known by its name gets a number when it is passed."""
    if isinstance(value, RemoteObject) and "name" in value._place:
        value = _ask(value)
    if not isinstance(value, RemoteObject) or "handle" not in value._place:
        raise _UnusableTestsError(f"they pass a {type(value).__name__}, which can't be sent to the program")
    return int(value._place["handle"])
