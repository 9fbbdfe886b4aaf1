"""The frame of the command: its list of commands, global options, logging, and how errors end."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer

from cmbert_retrieval.cli._groups import ANYWHERE, LazyCommand, lazily
from cmbert_retrieval.cli._output import clean
from cmbert_retrieval.errors import CmbertError

COMMANDS = {
    "search": ("Search an index by words and by meaning.", "search:search"),
    "codes": ("Find codes for what people write, and show codes in their tree.", "codes:app"),
    "corpus": (
        "Fetch a corpus, tell what is in one, convert it; list the readers.",
        "corpus:app",
    ),
    "index": ("Build an index, add to it, update it, delete from it, check it.", "index:app"),
    "eval": (
        "Measure how well searching finds what it should.",
        "eval:app",
    ),
    "pretrain": ("Pretrain a ModernBERT with token-aware masking.", "pretrain:app"),
    "finetune": ("Fine-tune an encoder for search, by a teacher and by pairs.", "finetune:app"),
    "mine": ("Find negatives for pairs of texts.", "mine:mine"),
    "export": ("Turn an encoder into the ONNX folder that runs without torch.", "export:export"),
    "demo": ("Build the ICD-10-CM index and answer five questions with it.", "demo:demo"),
    "env": ("Show versions, processor, GPUs and caches: for a bug report.", "env:env"),
}
"""Command -> (what ``--help`` says of it, where it lives in this package)."""

MAX_MESSAGE = 300
"""Characters of an unforeseen error that are shown: such messages are not ours and may quote whole inputs."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    name="cmbert",
    cls=lazily(
        *(
            LazyCommand(name, help=help_line, target=f"cmbert_retrieval.cli.{target}")
            for name, (help_line, target) in COMMANDS.items()
        )
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from cmbert_retrieval import __version__

        typer.echo(f"cmbert-retrieval {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="CMBERT_DEBUG", help="Log everything, and show tracebacks.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Errors only: no progress, no warnings.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is being done.")] = False,
) -> None:
    """Search biomedical literature, clinical notes and code systems by words and by meaning.

    To begin:       cmbert codes "heart attack"
    Your own texts: cmbert index build --from READER:PATH --out my-index
    and then:       cmbert search my-index "your question"

    Results go to stdout, everything else to stderr.
    --debug, --quiet and --verbose may stand anywhere.
    """
    if debug:
        _configure_logging(logging.DEBUG)
    elif quiet:
        _configure_logging(logging.ERROR)
    else:
        _configure_logging(logging.INFO if verbose else logging.WARNING)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        args: the words behind ``cmbert``; those of the process by default.

    Returns:
        0, or 1 for an error (one line on stderr), 2 for a wrong command line, 130 when stopped by Ctrl-C.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character of an article must not end the command.
            stream.reconfigure(errors="backslashreplace")
    try:
        # `invoke` instead of Click's `main`: the latter has endings of its own for Ctrl-C and closed pipes.
        command = typer.main.get_command(app)
        if os.environ.get("_CMBERT_COMPLETE"):
            command.main(arguments, prog_name="cmbert")
        with command.make_context("cmbert", arguments) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return _say("stopped", code=1)
    except KeyboardInterrupt:
        return _say("stopped; run the same command again to go on", code=130)
    except BrokenPipeError:
        # The reader of our output has left (`| head`). Whatever Python still flushes at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error, debug=_debugging(arguments))
    return 0


def _report(error: Exception, *, debug: bool) -> int:
    """Print ``error`` as one line (after its traceback with ``debug``) and return the exit code."""
    if hasattr(error, "format_message"):
        return _report_usage(error)
    if debug:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, CmbertError):
        return _say(str(error), code=1)
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _DISK_FULL):
        return _say(_os_error_line(error), code=1)
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    what = what if len(what) <= MAX_MESSAGE else what[:MAX_MESSAGE] + " ..."
    return _say(what if debug else f"{what}; run again with --debug for the traceback", code=1)


def _report_usage(error: Exception) -> int:
    """Print what is wrong with the command line. Typer's classes of these errors are private: go by shape."""
    code = int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return code
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    message = str(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    return _say(f"{_PYDANTIC.sub(_in_plain_words, message)}{hint}", code=code)


_PYDANTIC = re.compile(r"Value error, |Input should be a valid (\w+)(?:, .*)?")
"""Typer passes on what pydantic, which reads the values for it, says to programmers."""


def _in_plain_words(found: re.Match[str]) -> str:
    kind = found[1]
    return f"expected {'a whole number' if kind == 'integer' else f'a {kind}'}" if kind else ""


def _os_error_line(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno in _DISK_FULL:
        return f"{where}no space left; free some, then run the same command again"
    if error.errno == errno.EACCES:
        return f"{where}permission denied; this user may not read or write it"
    return f"{where}{(error.strerror or type(error).__name__).lower()}"


def _say(message: str, *, code: int) -> int:
    print(f"cmbert: {clean(message)}", file=sys.stderr)  # noqa: T201 - this is the place that prints errors
    return code


def _debugging(arguments: Sequence[str]) -> bool:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    said = os.environ.get("CMBERT_DEBUG", "").strip().lower()
    return ANYWHERE[0] in arguments[:end] or said in ("1", "true", "yes", "on")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is now: a live progress bar puts itself there, below the log."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        pass


def _configure_logging(level: int) -> None:
    """Send log records to stderr: ours from ``level`` on, those of other packages from WARNING on."""
    handler = _StderrHandler()
    if level <= logging.INFO:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(logging.Formatter("cmbert: %(message)s"))
    root = logging.getLogger()
    for before in [one for one in root.handlers if isinstance(one, _StderrHandler)]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("cmbert_retrieval").setLevel(level)
