"""``mocosfl completion``: a script by which a shell completes commands, options, presets, settings and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mocosfl_mpi.commands.common import Subcommands
from mocosfl_mpi.config import settings
from mocosfl_mpi.presets import presets

SHELLS = ("bash", "zsh", "fish", "tcsh")
_WHERE = """\
Load it once in this shell, or for good:
  bash   source <(mocosfl completion bash)       in ~/.bashrc, or > ~/.local/share/bash-completion/completions/mocosfl
  zsh    mocosfl completion zsh > DIR/_mocosfl   for a DIR of your $fpath, before compinit
  fish   mocosfl completion fish > ~/.config/fish/completions/mocosfl.fish
  tcsh   mocosfl completion tcsh > FILE          and `source FILE` in ~/.tcshrc
"""
_BASH = """
_mocosfl_completed() {
  _shtab_mocosfl "$@"
  [[ ${#COMPREPLY[@]} = 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
  return 0
}

complete -o bashdefault -F _mocosfl_completed mocosfl
"""
"""After shtab's own script: no space after a setting's name, whose value comes next."""


def add(commands: Subcommands) -> None:
    """Declare the command."""
    completion = commands.add_parser(
        "completion",
        help="print a script for your shell that completes what you type",
        description="Print a script by which SHELL completes commands, options, presets, settings and files.",
        epilog=_WHERE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(action=_run)


def _run(options: argparse.Namespace) -> int:
    print(script(options.parser, options.shell), end="")
    return 0


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for the command that ``parser`` reads, in the language of ``shell``."""
    import shtab

    from mocosfl_mpi.retime.profiles import shipped

    kinds = {
        "CONFIG": _offer("configurations", presets(), ".toml"),
        "NAME": _offer("presets", presets()),
        "PROFILE": _offer("profiles", shipped(), ".toml"),
        "a.b=v": _offer("settings", [f"{name}=" for name, _, _ in settings()]),
    }
    for action in _actions(parser):
        kind = kinds.get(str(action.metavar))
        if kind is None and action.type is Path:
            directory = action.option_strings and action.metavar != "FILE"
            kind = shtab.DIRECTORY if directory else shtab.FILE
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell)) + (_BASH if shell == "bash" else "")


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action


def _offer(kind: str, words: Iterable[str], suffix: str = "") -> dict[str, Any]:
    """How each shell offers these words, and files that end in ``suffix`` if there is one."""
    listed, function = " ".join(words), f"_mocosfl_{kind}{'_or_files' * bool(suffix)}"
    bash = [f"{function}() {{", f'  compgen -W "{listed}" -- "$1"']
    zsh = [f"{function}() {{", f"  compadd -S '{'' if kind == 'settings' else ' '}' -- {listed}"]
    fish = listed
    if suffix:
        bash += [f"  compgen -f -X '!*{suffix}' -- \"$1\"", '  compgen -d -- "$1"']
        zsh += [f"  _files -g '*{suffix}'"]
        fish += f" (__fish_complete_suffix {suffix})"
    preamble = {"bash": "\n".join([*bash, "}"]), "zsh": "\n".join([*zsh, "}"])}
    return {"bash": function, "zsh": function, "fish": fish, "tcsh": f"({listed})", "preamble": preamble}
