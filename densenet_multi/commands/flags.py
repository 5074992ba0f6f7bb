"""Translate Python arguments in the library's messages into command-line flags.

The library's messages name an argument as ``name: expected …`` at the start of an error, and as
``name=value`` or ``name=`` within a sentence. They name a call as ``train(output='X',
resume=True)``. ``in_flags`` rewrites these as ``--name: expected …``, ``--name value``, ``--name``
and ``densenet-multi train --output X --resume``.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from click.core import ParameterSource

from .._files import quoted

PROGRAM = "densenet-multi"
STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
VALUE = rf"{STRING}|[\w.+-]*\w"
WORD_STARTS = r"(?<![\w./=-])"


def in_flags(text: str, context: click.Context) -> str:
    """Translate the current command's arguments and all calls in a message.

    Arguments of other commands stay as they are. So does anything that the user has typed, even if
    it looks like an argument: a folder may be called ``seed=3``.
    """
    parameters = _by_name(context.command)
    group = context.find_root().command
    commands: Mapping[str, click.Command] = group.commands if isinstance(group, click.Group) else {}
    names, typed = _any_of(parameters), _any_of(_words_and_paths(context.params.values()))
    pattern = (
        rf"{WORD_STARTS}{typed}(?![\w=(])"
        rf"|{WORD_STARTS}[A-Z]\w*\((?:[^()]|\([^()]*\))*\)"  # an object's repr
        rf"|{WORD_STARTS}(?P<call>(?P<command>{_any_of(commands)})\((?:[^()'\"]|{STRING})*\))"
        rf"|(?:^|(?<=Error: ))(?P<subject>{names})(?=: expected)"
        rf"|{WORD_STARTS}(?P<name>{names})=(?P<value>{VALUE})?"
    )

    def translated(match: re.Match[str]) -> str:
        if match["call"]:
            return _typed_call(match["call"], commands[match["command"]])
        if match["subject"]:
            return flag(parameters[match["subject"]])
        if match["name"]:
            return _typed_argument(parameters[match["name"]], match["value"] or "")
        return match[0]

    return re.sub(pattern, translated, text)


def flag_of(command: click.Command, name: str) -> str:
    """Return the flag of a command's parameter, or the placeholder of a positional argument."""
    return flag(_by_name(command)[name])


def _by_name(command: click.Command) -> dict[str, click.Parameter]:
    return {parameter.name: parameter for parameter in command.params if parameter.name}


def _any_of(words: Iterable[str]) -> str:
    """Return a pattern that matches one of these words, or nothing if there are none."""
    longest_first = sorted(words, key=len, reverse=True)
    return f"(?:{'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)"


def _words_and_paths(values: Iterable[object]) -> list[str]:
    entries = [
        entry for value in values for entry in (value if isinstance(value, tuple) else (value,))
    ]
    return [str(entry) for entry in entries if isinstance(entry, (str, Path)) and str(entry)]


def flag(parameter: click.Parameter) -> str:
    """Return the flag of a parameter, or the placeholder of a positional argument."""
    if isinstance(parameter, click.Argument):
        return parameter.human_readable_name
    return max(parameter.opts, key=len)


def typed_command(context: click.Context) -> str:
    """Return the command line of the current command, as typed, without the defaults."""
    words = [PROGRAM, str(context.command.name)]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            named = [] if isinstance(parameter, click.Argument) else [flag(parameter)]
            words += [*named, *([] if value is True else [quoted(value)])]
    return " ".join(words)


def _typed_argument(parameter: click.Parameter, literal: str) -> str:
    """Return ``name=literal`` as a flag; the literal is Python code, a placeholder or empty."""
    name, value = flag(parameter), _value(literal)
    if not literal:
        return name
    if isinstance(parameter, click.Argument):
        return quoted(value)
    if value is True or (value is False and getattr(parameter, "flag_value", None) is False):
        return name
    if value is None or value is False:
        return f"no {name}"
    return f"{name} {shlex.quote(str(value))}"


def _value(literal: str) -> object:
    if literal[:1] in ("'", '"') or literal in ("True", "False", "None"):
        return ast.literal_eval(literal)
    return literal


def _typed_call(call: str, command: click.Command) -> str:
    """Return a Python call as a command line, or the call itself if the command lacks an option."""
    try:
        parsed = ast.parse(call, mode="eval").body
    except SyntaxError:
        return call
    if not isinstance(parsed, ast.Call):
        return call
    parameters = _by_name(command)
    words = [quoted(_value(ast.unparse(argument))) for argument in parsed.args]
    for keyword in parsed.keywords:
        if keyword.arg not in parameters:
            return call
        words.append(_typed_argument(parameters[keyword.arg], ast.unparse(keyword.value)))
    return " ".join([PROGRAM, str(command.name), *words])
