"""From functions to options, and from a command line to a call."""

import inspect
import json
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import metadata
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, get_loader, set_loader

from scav_model import config_files
from scav_model.cli import numbers, places, tree
from scav_model.cli.exits import FAILURE, INTERRUPTED, PROGRAM, interrupted
from scav_model.cli.imported import documented, sources
from scav_model.cli.models import FIRST, SHORT, train
from scav_model.cli.shared_help import SHARED
from scav_model.cli.terminal import interruptible
from scav_model.cli.tree import Commands, Group, leaves
from scav_model.cli.words import arranged, command_of, completed, options, positional, takes_texts
from scav_model.config import Config
from scav_model.extras import explain
from scav_model.fields import nearest
from scav_model.storage.text import printable

USAGE = 2
load_yaml = get_loader("yaml")


def load_text(text: str) -> Any:
    """Return what YAML makes of a value. Bytes of a file's name that are not UTF-8 are no YAML, and stay as they are.

    Raises:
        yaml.YAMLError: the value is no YAML.
    """
    try:
        return load_yaml(text)
    except UnicodeEncodeError as error:
        raise yaml.YAMLError(str(error)) from error


set_loader("yaml", load_text, (yaml.YAMLError,))


class Help(DefaultHelpFormatter):
    """Shows types as their values are typed: video | audio | null."""

    def _get_type_str(self, action: Action) -> str | None:
        text = super()._get_type_str(action)
        return None if text is None else readable(text)


def readable(text: str) -> str:
    """Return a type as its values are typed."""
    text = re.sub(r"^Optional\[(.*)\]$", r"\1 | null", text)
    text = re.sub(r"^<class '(.*)'>$", r"\1", text)
    return re.sub(r"Literal\[([^]]*)\]", lambda words: words[1].replace("'", "").replace(", ", " | "), text)


class Parser(ArgumentParser):
    """Reports a bad option in one line.

    Attributes:
        first: the options that help shows; none: all.
    """

    first: tuple[str, ...] = ()

    def format_help(self, *arguments: Any) -> str:
        if self.first:
            shown = [action for name in self.first for action in self._actions if action.dest == name]
            for action in shown:
                # Of two names the short one.
                action.option_strings = action.option_strings[-1:]
            for group in self._action_groups:
                group._group_actions = shown if group is self._optionals else []
                group.description = None
            self.usage = f"{self.prog.replace(' [options]', '')} [options]"
        return super().format_help(*arguments)

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
        # A group of commands without a command after it is named in the same way.
        if group := re.match(r'expected "([\w.]+)\.command"', message):
            command = " ".join((PROGRAM, *group[1].split(".")))
            message = message.replace(f"{group[1]}.command", "command")
        message = printable(" ".join(message.split())) + suggestion(message, tuple(command.split()[1:]))
        self.exit(USAGE, f"{command}: error: {message} (see {command} --help)\n")


class HelpAll(Action):
    """Prints the help of every option."""

    def __call__(self, parser: Any, *_: Any) -> None:
        parser.first = ()
        parser.print_help()
        parser.exit()


def as_written(parameter: str, function: Callable[..., None]) -> str:
    """An argument of a command, as its user writes it."""
    return parameter.upper() if parameter in positional(function) else f"--{parameter}"


def suggestion(message: str, words: tuple[str, ...]) -> str:
    """Suggest the option or command that an unknown one in an error message was probably meant to be."""
    unknown = re.search(
        r"(?:unrecognized arguments: (-*)|does not accept option '|invalid choice: ')([\w.-]+)", message
    )
    if not unknown:
        return ""
    dashes, name = unknown.groups()
    function = dict(leaves(tree.COMMANDS)).get(words)
    if function is None:
        return nearest(name, [word for below, _ in leaves(tree.COMMANDS) for word in below])
    near = nearest(name.replace("-", "_"), options(function))
    if near and dashes:
        # As the user spells options.
        near = near.replace("did you mean ", "did you mean --", 1)
        near = near.replace("_", "-") if "-" in name else near
    return near or ("; an id that begins with - stands after --" if takes_texts(function) else "")


def with_files_read(arguments: Sequence[str]) -> list[str]:
    """The command line, as `arranged` left it, with the content of each `--config` file in place of its name."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    marked = "--config="
    read = [
        marked + content(argument.removeprefix(marked)) if argument.startswith(marked) else argument
        for argument in arguments[:end]
    ]
    return [*read, *arguments[end:]]


def content(name: str) -> str:
    # Settings may stand on the command line themselves.
    return name if name.lstrip().startswith("{") else json.dumps(config_files.read(name))


def add_options(command: Parser, function: Callable[..., None]) -> None:
    """An option per parameter but `config`; those that are off by default are flags: --quick, not --quick true."""
    parameters = inspect.signature(function).parameters
    flags = [name for name, parameter in parameters.items() if parameter.default is False]
    help_of = dict(SHARED)
    for part, entries in sources(function):
        help_of |= {name: text for name, text in documented(part).items() if name in entries}
    arguments = positional(function)
    for name in arguments:
        kind = parameters[name].annotation
        several: dict[str, Any] = {"nargs": "*", "type": str} if kind == Sequence[str] else {"type": kind}
        if parameters[name].default is not inspect.Parameter.empty:
            several |= {"nargs": "?", "default": parameters[name].default}
        command.add_argument(name, help=help_of[name], **several)
    for part, entries in sources(function):
        left_out = set(inspect.signature(part).parameters) - set(entries)
        skip: set[str | int] = {"config", *flags, *arguments, *left_out}
        command.add_function_arguments(part, as_group=False, skip=skip)
    for name in flags:
        command.add_argument(f"--{name}", action="store_true", help=help_of[name])
    for action in command._actions:
        if action.help is None:
            action.help = help_of.get(action.dest)


def make_parser(words: tuple[str, ...]) -> Parser:
    """Return a parser of all commands; only the command of these words has its options."""
    parser = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        formatter_class=Help,
        # Asking scav_kernels itself would import torch.
        version=metadata.version("scav-kernels"),
        description="Sequential contrastive audio-visual learning: train, search and compare. Names of options may "
        "have hyphens for underscores; ids and files whose names begin with a hyphen stand after --.",
    )
    add_commands(parser, tree.COMMANDS, words)
    return parser


def add_commands(parser: Parser, commands: Commands, words: tuple[str, ...]) -> None:
    choices = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    for name, entry in commands.items():
        summary = entry.summary if isinstance(entry, Group) else (entry.__doc__ or "").splitlines()[0]
        command = Parser(description=summary, allow_abbrev=False, formatter_class=Help)
        if isinstance(entry, Group):
            # jsonargparse wants a parser to be in its place before it gets commands of its own.
            choices.add_subcommand(name, command, help=summary)
            add_commands(command, entry.commands, words[1:] if words[:1] == (name,) else ())
            continue
        if words == (name,):
            add_all_options(command, entry)
        choices.add_subcommand(name, command, help=summary)


def add_all_options(command: Parser, function: Callable[..., None]) -> None:
    """An option per parameter, and those that every command has."""
    command.add_argument(
        "--config",
        action="config",
        help="YAML file of options, or a packaged one by name, such as vggsound/scav_dtw; later options win. "
        "In it, base: NAME names another that it changes.",
    )
    if function is train:
        command.add_argument("--help_all", action=HelpAll, nargs=0, default=SUPPRESS, help="Show every option.")
        command.add_class_arguments(Config, None)
        command.first = FIRST
    add_options(command, function)
    command.add_argument("--traceback", action="store_true", help="Show where in the program an error arose.")
    if function is train:
        for action in command._actions:
            # The command line is put into the parser's spelling before it is parsed.
            action.option_strings = [
                *action.option_strings,
                *(f"--{short}" for short, name in SHORT.items() if name == action.dest),
            ]


def run(arguments: Sequence[str]) -> int:
    """Run one command; return the exit code: 0, 1 after a failure, 130 after Ctrl-C. Bad options exit with 2."""
    arguments = completed(arguments)
    count, function = command_of(arguments)
    words = tuple(arguments[:count]) if function else ()
    command = " ".join((PROGRAM, *words))
    try:
        parser = make_parser(words)
    except ImportError as error:
        print(f"{command}: error: {told(error)}", file=sys.stderr)
        return FAILURE
    try:
        parsed = parser.parse_args(with_files_read(arranged(arguments)))
        assert function is not None, "the parser ends where no command is named"
        values = vars(parser.instantiate(parsed)[".".join(words)])
    except (ValueError, TypeError, OSError, ArithmeticError, RecursionError) as error:
        parser.exit(USAGE, f"{command}: error: {told(error)} (see {command} --help)\n")
    values.pop("config")
    traceback = values.pop("traceback")
    if function is train:
        values["config"] = Config(**{entry.name: values.pop(entry.name) for entry in fields(Config)})
    try:
        with interruptible(f"{command}: interrupted{advice(function)}", INTERRUPTED):
            numbers.check(values)
            places.check(values)
            function(**values)
    except KeyboardInterrupt as stop:
        return interrupted(command, stop, advice(function))
    except BrokenPipeError:
        raise
    except Exception as error:
        if traceback:
            raise
        print(f"{command}: error: {told(error)}", file=sys.stderr)
        return FAILURE
    return 0


# Errors that commands raise to say what is wrong; any other is a fault in the program.
EXPECTED = (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError)


def told(error: Exception) -> str:
    """Return an error in one line that prints."""
    if isinstance(error, ImportError):
        error = explain(error, PROGRAM)
    text = places.told(error) if isinstance(error, OSError) else str(error)
    if not isinstance(error, EXPECTED):
        text = f"a fault in {PROGRAM}, {type(error).__name__}: {text}; --traceback shows where, please report it"
    return printable(" ".join(text.split())) or f"{type(error).__name__} without a message; --traceback shows where"


def advice(function: Callable[..., None]) -> str:
    """Say how to resume a command after Ctrl-C."""
    if function in tree.CONTINUED:
        return "; the same command goes on"
    return "; --resume keeps what is finished" if "resume" in inspect.signature(function).parameters else ""
