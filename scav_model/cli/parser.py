"""From functions to options, and from a command line to a call."""

import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import metadata
from typing import Any, NoReturn

import docstring_parser
from jsonargparse import ArgumentParser

from scav_model import config_files
from scav_model.cli import tree
from scav_model.cli.models import train
from scav_model.cli.terminal import interruptible, print_anything
from scav_model.cli.tree import Commands, Group, leaves
from scav_model.config import Config
from scav_model.fields import names, nearest

PROGRAM = "scav"
USAGE, FAILURE, INTERRUPTED = 2, 1, 130


class Parser(ArgumentParser):
    """Reports a bad option in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        if message.startswith("the following arguments are required"):
            # The top parser names an option train.seed where the user of `scav train` writes --seed.
            for words, function in leaves(tree.COMMANDS):
                prefix = rf"(?<![\w.])(?:--)?{re.escape('.'.join(words))}\."
                for parameter in re.findall(rf"{prefix}(\w+)", message):
                    command = " ".join((PROGRAM, *words))
                    message = re.sub(rf"{prefix}{parameter}\b", as_written(parameter, function), message)
        # Likewise a group of commands, after which none was named.
        if group := re.match(r'expected "([\w.]+)\.command"', message):
            command = " ".join((PROGRAM, *group[1].split(".")))
            message = message.replace(f"{group[1]}.command", "command")
        message = " ".join(message.split()) + suggestion(message, tuple(command.split()[1:]))
        self.exit(USAGE, f"{command}: error: {message} (see {command} --help)\n")


def as_written(parameter: str, function: Callable[..., None]) -> str:
    """An argument of a command, as its user writes it."""
    return parameter.upper() if parameter in positional(function) else f"--{parameter}"


def suggestion(message: str, words: tuple[str, ...]) -> str:
    """What the unknown option, or command, of an error message was probably meant to be."""
    unknown = re.findall(r"(?:unrecognized arguments: -*|does not accept option '|invalid choice: ')([\w.]+)", message)
    if not unknown:
        return ""
    function = dict(leaves(tree.COMMANDS)).get(words)
    if function is None:
        return nearest(unknown[0], [name for below, _ in leaves(tree.COMMANDS) for name in below])
    known = list(inspect.signature(function).parameters)
    return nearest(unknown[0], [*known, *names(Config)] if function is train else known)


def with_files_read(arguments: Sequence[str]) -> list[str]:
    """The command line with the content of each `--config` file, its bases included, in place of its name."""
    read = []
    for position, argument in enumerate(arguments):
        name, joined, value = argument.partition("=")
        if name == "--config" and joined:
            read.append(f"--config={content(value)}")
        elif position and arguments[position - 1] == "--config":
            read.append(content(argument))
        else:
            read.append(argument)
    return read


def content(name: str) -> str:
    # Settings may stand on the command line themselves.
    return name if name.lstrip().startswith("{") else json.dumps(config_files.read(name))


def positional(function: Callable[..., None]) -> list[str]:
    """What the command line takes without an option's name: a lone parameter, or what stands before a `*`."""
    parameters = inspect.signature(function).parameters.values()
    if len(parameters) > 1 and all(entry.kind is not inspect.Parameter.KEYWORD_ONLY for entry in parameters):
        return []
    return [entry.name for entry in parameters if entry.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def add_options(command: Parser, function: Callable[..., None]) -> None:
    """An option per parameter but `config`; those that are off by default are flags: --quick, not --quick true."""
    parameters = inspect.signature(function).parameters
    flags = [name for name, parameter in parameters.items() if parameter.default is False]
    help_of = {entry.arg_name: entry.description for entry in docstring_parser.parse(function.__doc__ or "").params}
    arguments = positional(function)
    for name in arguments:
        kind = parameters[name].annotation
        several: dict[str, Any] = {"nargs": "*", "type": str} if kind == Sequence[str] else {"type": kind}
        command.add_argument(name, help=help_of[name], **several)
    command.add_function_arguments(function, as_group=False, skip={"config", *flags, *arguments})
    for name in flags:
        command.add_argument(f"--{name}", action="store_true", help=help_of[name])


def make_parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        # Asking scav_kernels itself would import torch.
        version=metadata.version("scav-kernels"),
        description="Sequential contrastive audio-visual learning: train, search and compare.",
    )
    add_commands(parser, tree.COMMANDS)
    return parser


def add_commands(parser: Parser, commands: Commands) -> None:
    choices = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    for name, entry in commands.items():
        summary = entry.summary if isinstance(entry, Group) else (entry.__doc__ or "").splitlines()[0]
        command = Parser(description=summary, allow_abbrev=False)
        if isinstance(entry, Group):
            # jsonargparse wants a parser to be in its place before it gets commands of its own.
            choices.add_subcommand(name, command, help=summary)
            add_commands(command, entry.commands)
            continue
        command.add_argument("--traceback", action="store_true", help="Show where in the program an error arose.")
        command.add_argument(
            "--config",
            action="config",
            help="YAML file of options, or a packaged one by name, such as vggsound/scav_dtw; later options win. "
            "In it, base: NAME names another that it changes.",
        )
        if entry is train:
            command.add_class_arguments(Config, None)
        add_options(command, entry)
        choices.add_subcommand(name, command, help=summary)


def chosen(parsed: Any) -> tuple[str, ...]:
    """The words of the command that was asked for."""
    words: tuple[str, ...] = ()
    while getattr(parsed, "command", None) is not None:
        words += (parsed.command,)
        parsed = parsed[parsed.command]
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 after a failure, 130 after Ctrl-C. Bad options exit with 2."""
    parser = make_parser()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        given = with_files_read(given)
    except (ValueError, OSError) as error:
        parser.exit(USAGE, f"{PROGRAM}: error: {' '.join(str(error).split())} (see {PROGRAM} --help)\n")
    parsed = parser.parse_args(given)
    words = chosen(parsed)
    function = dict(leaves(tree.COMMANDS))[words]
    command = " ".join((PROGRAM, *words))
    try:
        options = vars(parser.instantiate(parsed)[".".join(words)])
    except ValueError as error:
        parser.exit(USAGE, f"{command}: error: {error} (see {command} --help)\n")
    options.pop("config")
    traceback = options.pop("traceback")
    if function is train:
        options["config"] = Config(**{entry.name: options.pop(entry.name) for entry in fields(Config)})
    interrupted = f"{command}: interrupted{advice(function)}"
    print_anything()
    try:
        with interruptible(interrupted, INTERRUPTED):
            function(**options)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, RuntimeError, OSError, ImportError) as error:
        if traceback:
            raise
        print(f"{command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILURE
    return 0


def advice(function: Callable[..., None]) -> str:
    """How a command is gone on with after Ctrl-C."""
    if function in tree.CONTINUED:
        return "; the same command goes on"
    return "; --resume keeps what is finished" if "resume" in inspect.signature(function).parameters else ""
