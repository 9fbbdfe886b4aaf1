"""The frame of the command: its help, its errors, its exit codes and what it prints where."""

from __future__ import annotations

import errno
import importlib.util
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import typer

from cmbert_retrieval.cli import _main, _output
from cmbert_retrieval.cli._groups import LazyCommand, falls_through_to, lazily
from cmbert_retrieval.errors import ConfigError
from cmbert_retrieval.types import Query

HEAVY = ("torch", "transformers", "faiss", "onnxruntime", "numpy", "lxml", "tokenizers", "tantivy")


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cmbert_retrieval", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160", **environment},
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The frame with a command ``fail``: the attribute ``fail`` of this module, which the test sets."""
    module = ModuleType("failing_command")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    app = typer.Typer(cls=lazily(LazyCommand("fail", help="Fail.", target="failing_command:fail")))
    app.callback()(_main._options)
    monkeypatch.setattr(_main, "app", app)
    monkeypatch.delenv("CMBERT_DEBUG", raising=False)
    module.fail = lambda: None  # type: ignore[attr-defined]
    return module


def raising(error: BaseException) -> object:
    def fail() -> None:
        raise error

    return fail


def test_help_lists_every_command_with_what_it_does_and_loads_nothing_heavy() -> None:
    program = "import sys; from cmbert_retrieval.cli import main; code = main(['--help']); "
    program += f"print([name for name in {HEAVY!r} if name in sys.modules], code)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "COLUMNS": "160"}
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    for name, (help_line, _) in _main.COMMANDS.items():
        assert any(name in line and help_line in line for line in done.stdout.splitlines()), name


@pytest.mark.parametrize("name", _main.COMMANDS)
def test_every_command_of_the_list_can_be_loaded_and_has_help(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: cmbert {name}" in done.stdout


def test_an_unknown_command_names_the_nearest_one_and_exits_with_2() -> None:
    done = run("serch", "heart attack")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("cmbert: No such command 'serch'")
    assert "Did you mean 'search'?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_option_exits_with_2_and_one_line() -> None:
    done = run("env", "--jsn")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--jsn" in done.stderr and "--json" in done.stderr


def test_no_command_at_all_shows_the_help() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage: cmbert" in done.stdout + done.stderr


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("cmbert-retrieval 0.")


def test_our_errors_are_one_line_on_stderr(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    command.fail = raising(ConfigError("k is 0; expected\na positive number"))  # type: ignore[attr-defined]
    assert _main.main(["fail"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "cmbert: k is 0; expected\\na positive number\n"
    assert printed.out == ""


@pytest.mark.parametrize("args", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_anywhere_on_the_line_adds_the_traceback(
    command: ModuleType, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    command.fail = raising(ConfigError("wrong"))  # type: ignore[attr-defined]
    assert _main.main(args) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1] == "cmbert: wrong"


def test_the_debug_variable_adds_the_traceback(
    command: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command.fail = raising(ConfigError("wrong"))  # type: ignore[attr-defined]
    monkeypatch.setenv("CMBERT_DEBUG", "1")
    assert _main.main(["fail"]) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_an_unforeseen_error_is_one_short_line_that_names_its_type(
    command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    command.fail = raising(KeyError("x" * 5000))  # type: ignore[attr-defined]
    assert _main.main(["fail"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("cmbert: KeyError: 'xxx")
    assert line.endswith("run again with --debug for the traceback\n")
    assert len(line) < 500


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b.npy"), "a/b.npy: no space left"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: permission denied"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a/b"),
            "a/b: no such file or directory",
        ),
    ],
)
def test_errors_of_the_file_system_name_the_file(
    command: ModuleType, capsys: pytest.CaptureFixture[str], error: OSError, line: str
) -> None:
    command.fail = raising(error)  # type: ignore[attr-defined]
    assert _main.main(["fail"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"cmbert: {line}")
    assert printed.count("\n") == 1


def test_an_exit_code_given_by_a_command_is_kept(command: ModuleType) -> None:
    command.fail = raising(typer.Exit(1))  # type: ignore[attr-defined]
    assert _main.main(["fail"]) == 1


def write_app(folder: Path, body: str) -> list[str]:
    """Write a command ``work`` with this body, and return how to start the frame with it."""
    program = "import time\n\ndef work() -> None:\n" + textwrap.indent(body, "    ")
    (folder / "work_command.py").write_text(program)
    start = (
        "import sys; from cmbert_retrieval.cli import _main; "
        "from cmbert_retrieval.cli._groups import LazyCommand, lazily; import typer; "
        "app = typer.Typer(cls=lazily(LazyCommand('work', help='', target='work_command:work'))); "
        "app.callback()(_main._options); _main.app = app; sys.exit(_main.main(['work']))"
    )
    return [sys.executable, "-c", start]


def test_ctrl_c_says_how_to_go_on_and_exits_with_130(tmp_path: Path) -> None:
    args = write_app(tmp_path, "print('ready', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "cmbert: stopped; run the same command again to go on\n"


def test_a_reader_that_leaves_early_is_no_error_message(tmp_path: Path) -> None:
    args = write_app(tmp_path, "for number in range(200_000):\n    print(number)\n")
    with subprocess.Popen(
        args, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""


def verbs() -> typer.Typer:
    app = typer.Typer(cls=falls_through_to("search"), no_args_is_help=True)

    @app.command()
    def search(query: str, k: int = typer.Option(10, "-k")) -> None:
        typer.echo(f"search {query} {k}")

    @app.command()
    def show(code: str) -> None:
        typer.echo(f"show {code}")

    return app


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["heart attack"], "search heart attack 10"),
        (["heart attack", "-k", "3"], "search heart attack 3"),
        (["-k", "3", "heart attack"], "search heart attack 3"),
        (["search", "heart attack"], "search heart attack 10"),
        (["search", "search"], "search search 10"),
        (["--", "show"], "search show 10"),
        (["show", "I21.9"], "show I21.9"),
    ],
)
def test_words_that_are_no_subcommand_go_to_the_main_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: list[str], expected: str
) -> None:
    module = ModuleType("verbs_command")
    module.app = verbs()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    app = typer.Typer(cls=lazily(LazyCommand("codes", help="", target="verbs_command:app")))
    app.callback()(_main._options)
    monkeypatch.setattr(_main, "app", app)
    assert _main.main(["codes", *args]) == 0
    assert capsys.readouterr().out.strip() == expected


def test_the_help_of_a_group_that_falls_through_lists_its_subcommands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        typer.main.get_command(verbs())(["--help"])
    assert stop.value.code == 0
    assert "show" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "shown"),
    [([], ["a warning"]), (["--quiet"], []), (["--verbose"], ["a notice", "a warning"])],
)
def test_quiet_and_verbose_decide_what_is_logged_on_stderr(
    command: ModuleType, capsys: pytest.CaptureFixture[str], args: list[str], shown: list[str]
) -> None:
    def fail() -> None:
        logging.getLogger("cmbert_retrieval.test").info("a notice")
        logging.getLogger("cmbert_retrieval.test").warning("a warning")

    command.fail = fail  # type: ignore[attr-defined]
    assert _main.main(["fail", *args]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == len(shown)
    assert all(text in line for text, line in zip(shown, lines, strict=True))


def test_json_takes_dataclasses_numpy_values_paths_and_sets(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "query": Query("1", "Ménière"),
        "score": np.float32(0.5),
        "rows": np.arange(3),
        "path": Path("a/b"),
        "kinds": {"b", "a"},
    }
    _output.print_json(value)
    assert json.loads(capsys.readouterr().out) == {
        "query": {"id": "1", "text": "Ménière"},
        "score": 0.5,
        "rows": [0, 1, 2],
        "path": "a/b",
        "kinds": ["a", "b"],
    }


def test_json_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        _output.print_json(float("nan"))
    with pytest.raises(TypeError, match="a object has no JSON form"):
        _output.print_json(object())


def test_a_piped_table_is_tab_separated_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _output.print_table(("rank", "title"), [(1, "a\tb\n\x1b[31mc"), (2, None)], title="left out")
    assert capsys.readouterr().out == "1\ta b [31mc\n2\t\n"


def test_a_table_on_a_terminal_has_a_title_and_headings_and_takes_no_markup() -> None:
    program = (
        "from cmbert_retrieval.cli._output import print_table; "
        "print_table(('rank', 'name'), [(1, '[red]text')], title='Answers')"
    )
    main_end, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=terminal, env={**os.environ, "TERM": "dumb"}
    )
    os.close(terminal)
    shown = os.read(main_end, 10_000).decode()
    os.close(main_end)
    assert done.returncode == 0
    for text in ("Answers", "rank", "name", "[red]text"):
        assert text in shown


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(_output, "time", SimpleNamespace(monotonic=lambda: now[0]))
    logging.getLogger("cmbert_retrieval").setLevel(logging.WARNING)
    with _output.ProgressBar("encoding", total=200, unit="texts") as progress:
        for _ in range(20):
            now[0] += 1.0
            progress(10)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "encoding: 100 of 200 texts (50%), 10.0 a second, 10 s left",
        "encoding: 200 of 200 texts (100%), 10.0 a second, 20 s in all",
    ]


def test_progress_is_silent_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("cmbert_retrieval").setLevel(logging.ERROR)
    try:
        with _output.ProgressBar("encoding") as progress:
            progress(10)
    finally:
        logging.getLogger("cmbert_retrieval").setLevel(logging.NOTSET)
    assert capsys.readouterr().err == ""


def test_env_tells_versions_processor_and_caches_as_json(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2**20)
    done = run("env", "--json", CMBERT_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["dependencies"]["numpy"] == np.__version__
    assert 0 < facts["processor"]["cores usable"] <= facts["processor"]["cores"]
    assert facts["cache"] == {**facts["cache"], "path": str(tmp_path), "exists": True, "size MiB": 1.0}
    assert facts["offline"]["HF_HUB_OFFLINE"] == "1"
    if importlib.util.find_spec("torch") is None:
        assert facts["gpu"]["torch"] == "not installed"
        assert facts["attention"]["sdpa"] == "not installed"


def test_env_still_answers_where_a_package_is_broken(tmp_path: Path) -> None:
    (tmp_path / "faiss.py").write_text("raise ImportError('libfaiss.so: cannot open\\nshared object')")
    done = run("env", "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["faiss"] == {
        "build": "installed, but its import fails: libfaiss.so: cannot open shared object"
    }


def test_env_when_piped_is_three_tab_separated_fields_a_line() -> None:
    done = run("env")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert all(len(line) == 3 for line in lines)
    assert ["versions", "python", ".".join(map(str, sys.version_info[:3]))] in lines
