"""How the command line behaves when something is wrong: one sentence, the right exit status, never a traceback.

Exit statuses: 0 done; 1 the work failed; 2 the call was wrong; 130 stopped with Ctrl-C. Setting HEMASCOPE_DEBUG=1
shows tracebacks to developers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from hemascope.console import is_first_process, printable
from hemascope.errors import HemascopeError, UsageError
from hemascope.progress import Progress

HELP_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
INTERRUPTED = 130
"""What a shell expects of a program stopped with Ctrl-C."""

_OUT_OF_MEMORY = (
    "memory ran out. Use a smaller batch_size (--set stages.1.batch_size=16) or size, or close other programs."
)
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


class HemascopeGroup(click.Group):
    """The root command: verbs in the order of a working day, and all errors turned into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order they were added, which is the order of use."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb named by the first word; an unknown one is answered with the nearest."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = get_close_matches(args[0], self.list_commands(ctx), n=1)
            end = f"did you mean '{close[0]}'?" if close else f"choose from {', '.join(self.list_commands(ctx))}."
            raise click.UsageError(f"no such command '{args[0]}'; {end}", ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run the command line and leave with its exit status."""
        _forgiving_streams()
        extra["obj"] = tuple(sys.argv[1:] if args is None else args)
        try:
            status = super().main(
                args, prog_name or "hemascope", complete_var, False, windows_expand_args=windows_expand_args, **extra
            )
            sys.stdout.flush()
        except click.ClickException as error:
            _show_usage(error)
            _leave(error.exit_code, error)
        except click.Abort as error:
            _complain("stopped.")
            _leave(INTERRUPTED, error)
        except HemascopeError as error:
            _complain(str(error))
            _leave(error.exit_code, error)
        except MemoryError as error:
            _complain(_OUT_OF_MEMORY)
            _leave(1, error)
        except BrokenPipeError:
            _mute_stdout()
            sys.exit(1)
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            _complain(f"{error.strerror or type(error).__name__}{place}.")
            _leave(1, error)
        except Exception as error:  # noqa: BLE001 - the outermost edge: what nobody foresaw must still be a sentence
            _complain(_unforeseen(error))
            _leave(1, error)
        sys.exit(status if isinstance(status, int) else 0)


def progress_of(ctx: click.Context) -> Progress:
    """Where the verb's work reports to, as ``--quiet`` and the terminal say."""
    from hemascope.console import make_progress

    return make_progress(quiet=bool(ctx.find_root().params.get("quiet")))


def command_line(ctx: click.Context) -> str:
    """The call as it was typed, for the run's record."""
    import shlex

    return shlex.join(["hemascope", *(str(word) for word in ctx.find_root().obj or ())])


def say(text: str = "") -> None:
    """One result line on stdout; only the first process of a distributed run speaks."""
    if is_first_process():
        click.echo(printable(text))


def say_json(value: Any) -> None:
    """One JSON object on stdout. NaN is refused: it is not JSON."""
    import json

    if is_first_process():
        click.echo(json.dumps(value, indent=1, allow_nan=False))


def class_names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """``--names a,b,c`` as a tuple; empty and repeated names are refused."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise UsageError(f"--names needs names separated by commas, such as a,b,c; found an empty one in '{value}'.")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(f"--names must name each class once, found '{repeated}' twice.")
    return names


def source_options(function: _Decorated) -> _Decorated:
    """``--format`` and ``--names``, for every verb that reads labelled cells."""
    function = click.option(
        "--names", callback=class_names, metavar="A,B,C", help="Class names in label order, for sources without names."
    )(function)
    return click.option(
        "--format", "format_name", metavar="NAME", help="Force a source format instead of recognising it."
    )(function)


PATH = click.Path(path_type=Path)
"""A path that the library checks, because its sentence says more than click's."""


def averaging_options(function: _Decorated) -> _Decorated:
    """``--tta`` and ``--ensemble``, for every verb that may look more than once."""
    function = click.option(
        "--ensemble", multiple=True, type=PATH, metavar="RUN", help="Another model to average with; may be repeated."
    )(function)
    return views_option(function)


def views_option(function: _Decorated) -> _Decorated:
    """``--tta``: None where it is not given, which leaves the model its own views; no views for ``none``."""
    return click.option(
        "--tta",
        multiple=True,
        callback=_views,
        metavar="VIEWS",
        help="Average views of each image: flips, dihedral, multi_crop or colour_constancy; may be repeated. The "
        "model's own if not given; none for one look.",
    )(function)


def _views(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...] | None:
    if not value:
        return None
    if "none" in value and len(value) > 1:
        raise UsageError(f"--tta none is no view at all: leave out none or {', '.join(set(value) - {'none'})}.")
    return () if value == ("none",) else value


def _complain(sentence: str) -> None:
    end = "" if sentence.endswith((".", "?", "!", ")")) else "."
    click.echo(f"Error: {printable(sentence)}{end}", err=True)


def _show_usage(error: click.ClickException) -> None:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = f"{message.rstrip()} (try '{error.ctx.command_path} --help')"
    _complain(message)


def _unforeseen(error: Exception) -> str:
    if type(error).__name__ == "OutOfMemoryError":  # torch's, recognised without importing torch
        return _OUT_OF_MEMORY
    return (
        f"something unforeseen went wrong ({type(error).__name__}: {_first_line(error)}). This is a fault in "
        "hemascope: run again with HEMASCOPE_DEBUG=1 and report what it shows."
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n", 1)[0]
    return line if len(line) <= 200 else f"{line[:200]}…"


def _leave(status: int, error: BaseException) -> NoReturn:
    if os.environ.get("HEMASCOPE_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    sys.exit(status)


def _forgiving_streams() -> None:
    """Let a stream that cannot show a character print its escape instead of failing half-way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _mute_stdout() -> None:
    """Keep Python from complaining at exit about the reader that has gone."""
    with suppress(OSError, ValueError):  # no real stdout, as in tests: nothing will complain then
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
