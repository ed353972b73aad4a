"""Command lines as they are typed, put into the order and the spelling that the parser takes."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeAlias, get_args

from scav_model.cli import tree
from scav_model.cli.models import SHORT, train
from scav_model.cli.tree import Group
from scav_model.config import Config
from scav_model.fields import names, old_names

# Options of every command, and whether a value follows.
COMMON = {"config": True, "traceback": False, "help": False, "print_config": False}
Function: TypeAlias = Callable[..., None]


def parameters(function: Function) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function, eval_str=True).parameters


def positional(function: Function) -> list[str]:
    """Parameters that the command line takes without an option's name: a lone one, or those before a `*`."""
    entries = parameters(function).values()
    if len(entries) > 1 and all(entry.kind is not inspect.Parameter.KEYWORD_ONLY for entry in entries):
        return []
    return [entry.name for entry in entries if entry.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def takes_texts(function: Function) -> bool:
    """Return whether a positional argument is any number of texts, such as ids of clips."""
    return any(parameters(function)[name].annotation == Sequence[str] for name in positional(function))


def options(function: Function) -> dict[str, bool]:
    """Return the options of a command, and whether a value follows: --quick does without."""
    taken = positional(function)
    known = {name: entry.default is not False for name, entry in parameters(function).items() if name not in taken}
    if function is train:
        known |= dict.fromkeys([*names(Config), *(entry.name for entry in fields(Config))], True) | {"help_all": False}
    return known | COMMON


def command_of(arguments: Sequence[str]) -> tuple[int, Function | None]:
    """Return how many words name the command, and its function; None where they name none."""
    commands = tree.COMMANDS
    for count, word in enumerate(arguments, start=1):
        entry = commands.get(word)
        if not isinstance(entry, Group):
            return count, entry
        commands = entry.commands
    return len(arguments), None


def completed(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the default command of a group, where options follow the group's name at once."""
    commands = tree.COMMANDS
    for count, word in enumerate(arguments, start=1):
        entry = commands.get(word)
        if not isinstance(entry, Group):
            break
        following = arguments[count] if count < len(arguments) else "--"
        if entry.default and following.startswith("-") and following not in ("-h", "--help"):
            return [*arguments[:count], entry.default, *arguments[count:]]
        commands = entry.commands
    return list(arguments)


def arranged(arguments: Sequence[str]) -> list[str]:
    """Return the command line with its options first, each as `--name=value`, and its positional arguments last.

    A name may have hyphens for underscores, and one hyphen where it is one letter. Where a command takes ids, a word
    that begins with one hyphen and is no option is an id; after `--`, every word is one.

    Raises:
        ValueError: a path is empty, or an option of train is given by its short name and by its place in the config.
    """
    count, function = command_of(arguments)
    if function is None:
        return list(arguments)
    if function is train:
        check_short(arguments)
    known = options(function)
    chosen: list[str] = []
    rest: list[str] = []
    words = iter(arguments[count:])
    pending: str | None = None  # an option that waits for its value
    for word in words:
        option = as_option(word, function, known)
        if pending is not None and is_value(word, option):
            chosen.append(f"{pending}={word}")
            pending = None
            continue
        if pending is not None:
            chosen.append(pending)
            pending = None
        if word == "--":
            rest += words
        elif option is None:
            rest.append(word)
        elif option.partition("=")[0] != option or not known.get(base(option, known), False):
            chosen.append(option)
        else:
            pending = option
    if pending is not None:
        chosen.append(pending)
    check_paths(function, chosen, rest)
    separator = ["--"] if any(word.startswith("-") for word in rest) else []
    return [*arguments[:count], *chosen, *separator, *rest]


def check_short(arguments: Sequence[str]) -> None:
    """
    Raises:
        ValueError: an option is given by its short name and by its place in the config.
    """
    typed = {word[2:].partition("=")[0].replace("-", "_") for word in arguments if word.startswith("--")}
    for short, name in SHORT.items():
        if {short, name} <= typed:
            raise ValueError(f"expected --{short} or --{name}, which are one option, got both; leave one out")


def check_paths(function: Function, chosen: Sequence[str], rest: Sequence[str]) -> None:
    """
    Raises:
        ValueError: a path is empty, which would be the current folder.
    """
    values = dict(option.removeprefix("--").split("=", 1) for option in chosen if "=" in option)
    values |= dict(zip(positional(function), rest, strict=False))
    for name, entry in parameters(function).items():
        if values.get(name) == "" and Path in (entry.annotation, *get_args(entry.annotation)):
            raise ValueError(f"expected {name} to be a path, got an empty one; . is the current folder")


def as_option(word: str, function: Function, known: dict[str, bool]) -> str | None:
    """Return a word as the option that it is, in the parser's spelling, an unknown one as it stands; else None."""
    if short := re.fullmatch(r"-([a-zA-Z])(?:(\d{1,6})|=(.*))?", word, re.DOTALL):
        letter, number, value = short.groups()
        if letter in known:
            return f"--{letter}" if number is None and value is None else f"--{letter}={number or value}"
        if word == "-h":
            return word
    if not word.startswith("-") or word == "-" or re.match(r"-\.?\d", word):
        return None
    name, joined, value = word.lstrip("-").partition("=")
    spelled = spelling(name, function, known)
    if word.startswith("--"):
        return word if spelled is None else f"--{spelled}{joined}{value}"
    # `-output` is a slip for `--output`, and `-UGabc` an id.
    return word if spelled is not None or not takes_texts(function) else None


def is_value(word: str, option: str | None) -> bool:
    """Return whether a word that follows an option is its value."""
    unknown = option == word and word != "-h"
    return not word.startswith("--") and (option is None or unknown)


def spelling(name: str, function: Function, known: dict[str, bool]) -> str | None:
    """Return the option of that name, in which hyphens may stand for underscores; None where there is none."""
    if function is train:
        name = SHORT.get(name.replace("-", "_"), old_names(Config).get(name, name))
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        option = ".".join(parts[:count]).replace("-", "_")
        if option.removesuffix("+") in known:
            keys = parts[count:]
            if not has_free_keys(function, option):
                keys = [key.replace("-", "_") for key in keys]
            return ".".join([option, *keys])
    return None


def has_free_keys(function: Function, option: str) -> bool:
    """Return whether the keys of an option are labels of the user's own, as in --results.My-Model."""
    entry = parameters(function).get(option)
    return entry is not None and entry.annotation == dict[str, Path]


def base(option: str, known: dict[str, bool]) -> str:
    """Return the option to which `--loss.options.gamma` belongs."""
    name = option.removeprefix("--").removesuffix("+")
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name
