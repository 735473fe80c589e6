"""The command line as a page of documentation: ``python -m mocosfl_mpi.manual``.

Made from the parsers' own tables and not from their ``--help``, whose line breaks depend on terminal and Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from mocosfl_mpi.cli import parser

_INTRODUCTION = """# The command line

<!-- Generated: python -m mocosfl_mpi.manual > docs/cli.md -->

`mocosfl COMMAND --help` prints the same. `python -m mocosfl_mpi` is another name of `mocosfl`.

| exit code | meaning |
|-|-|
| 0 | done; of commands that answer a question: yes |
| 1 | the run failed, or the answer is no (`diff`, `doctor`) |
| 2 | bad input: one message with the value and the remedy; nothing was changed |
| 3 | it does not fit (`plan`), or a requirement is not met (`audit`) |
| 75 | stopped in good order, with a checkpoint: the same command goes on |
"""


def markdown() -> str:
    """Return ``docs/cli.md``."""
    commands = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {choice.dest: choice.help or "" for choice in commands._get_subactions()}
    lines = [_INTRODUCTION, "| command | |", "|-|-|"]
    lines += [f"| [`{name}`](#mocosfl-{name}) | {_cell(text)} |" for name, text in summaries.items()]
    for name, command in commands.choices.items():
        lines += ["", f"## `mocosfl {name}`", "", *_command(command, summaries[name])]
    return "\n".join(lines) + "\n"


def _command(command: argparse.ArgumentParser, summary: str) -> Iterator[str]:
    text = command.description or summary[:1].upper() + summary[1:] + "."
    yield " ".join(text.split())
    actions = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
    if actions:
        yield from ("", "| argument | meaning |", "|-|-|")
    for action in actions:
        yield f"| {_words(action)} | {_cell(_meaning(action))} |"


def _words(action: argparse.Action) -> str:
    """The argument as it is typed, with the name of its value or its choices."""
    value = ""
    if action.nargs != 0:
        choices = "|".join(map(str, action.choices)) if action.choices is not None else ""
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        value = metavar or choices or action.dest.upper()
    value = {"?": f"[{value}]", "+": f"{value} …"}.get(str(action.nargs), value)
    return f"`{_cell(' '.join([', '.join(action.option_strings), value]).strip())}`"


def _meaning(action: argparse.Action) -> str:
    text = (action.help or "") % {"default": action.default}
    unsaid = action.option_strings and action.nargs != 0 and "default" not in text
    return f"{text} (default: {action.default})" if unsaid and action.default not in (None, "", []) else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
