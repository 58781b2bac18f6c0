"""The command as a whole: help, misspelt names, errors as sentences, Ctrl-C, and its start-up time."""

from __future__ import annotations

import importlib
import logging
import resource
import subprocess
import sys
from types import ModuleType

import click
import pytest

import moai
from moai.cli.main import COMMANDS, RESUME
from moai.errors import MoaiError


@pytest.fixture
def failing(monkeypatch):
    """``failing(error)``: the command ``ask`` raises it."""

    def install(error):
        @click.command("ask")
        @click.pass_context
        def ask(ctx):
            ctx.meta[RESUME] = "moai train tiny --resume"
            raise error

        monkeypatch.setattr("moai.cli.ask.ask", ask)

    importlib.import_module("moai.cli.ask")
    return install


def test_help_lists_every_command(run_cli):
    result = run_cli("--help")
    assert result.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert name in result.stdout and line in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_the_commands_say(name, run_cli):
    target, line = COMMANDS[name]
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.name == name
    assert command.short_help == line
    assert command.help.startswith(line)
    assert line in run_cli(name, "--help").stdout


def test_version(run_cli):
    assert run_cli("--version").stdout == f"moai, version {moai.__version__}\n"


def test_a_misspelt_command_names_the_nearest(run_cli):
    result = run_cli("trian", "x")
    assert result.exit_code == 2 and "no command 'trian'; did you mean 'train'?" in result.stderr


@pytest.fixture
def offered(monkeypatch):
    """The commands that plugins register in this test; none at first."""
    table: dict[str, tuple[str, str]] = {}
    monkeypatch.setattr("moai.plugins.load_commands", lambda: table)
    return table


def test_a_command_of_a_plugin_is_listed_and_imported_when_it_runs(run_cli, offered, monkeypatch):
    module = ModuleType("barcodes")
    module.read = click.Command("read-barcode", callback=lambda: click.echo("0110"), short_help="Read a barcode.")
    offered["read-barcode"] = ("barcodes:read", "Read a barcode.")
    assert "Read a barcode." in run_cli("--help").stdout
    assert "did you mean 'read-barcode'" in run_cli("read-barcod").stderr
    monkeypatch.setitem(sys.modules, "barcodes", module)
    assert run_cli("read-barcode").stdout == "0110\n"
    assert run_cli("read-barcode", "--debug").exit_code == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("barcodes.gone:read", "the command 'read' cannot be imported (No module named 'barcodes'); update"),
        ("json:gone", "the command 'read' cannot be imported"),
        ("json:dumps", "the command 'read' is no click command at json:dumps; update or uninstall its plugin"),
    ],
)
def test_a_broken_command_of_a_plugin_is_one_sentence(run_cli, offered, target, words):
    offered["read"] = (target, "Read.")
    result = run_cli("read")
    assert result.exit_code == 1 and words in result.stderr and result.stderr.count("\n") == 1


def test_moais_own_commands_come_first(run_cli, offered):
    offered["train"] = ("json:dumps", "Something else.")
    assert "Something else." not in run_cli("--help").stdout and run_cli("train", "--help").exit_code == 0


def test_a_command_whose_plugin_is_not_installed_names_it(run_cli, offered):
    result = run_cli("import-official", "a", "b")
    assert result.exit_code == 2 and "it comes with a plugin: pip install moai-official" in result.stderr


def test_an_error_of_the_user_is_one_sentence_and_code_1(run_cli, failing):
    failing(MoaiError("the cup is empty; fill it"))
    result = run_cli("ask")
    assert (result.exit_code, result.stderr, result.stdout) == (1, "error: the cup is empty; fill it\n", "")


@pytest.mark.parametrize("arguments", [("--debug", "ask"), ("ask", "--debug")])
def test_debug_lets_the_traceback_through(run_cli, failing, arguments):
    failing(MoaiError("the cup is empty"))
    assert isinstance(run_cli(*arguments).exception, MoaiError)


def test_the_environment_can_ask_for_tracebacks(run_cli, failing, monkeypatch):
    failing(MoaiError("the cup is empty"))
    monkeypatch.setenv("MOAI_DEBUG", "1")
    assert isinstance(run_cli("ask").exception, MoaiError)
    monkeypatch.setenv("MOAI_DEBUG", "0")
    assert run_cli("ask").exit_code == 1


def test_a_defect_of_ours_is_not_hidden(run_cli, failing):
    failing(ZeroDivisionError("ours"))
    assert isinstance(run_cli("ask").exception, ZeroDivisionError)


def test_an_interrupt_says_how_to_go_on(run_cli, failing):
    failing(KeyboardInterrupt())
    result = run_cli("ask")
    assert result.exit_code == 130 and "continue with: moai train tiny --resume" in result.stderr


def test_help_starts_in_under_three_tenths_of_a_second():
    # Time on the processor, not on the clock: what else the machine does must not decide.
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "moai.cli.main", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.3


@pytest.mark.parametrize("arguments, shown", [((), 5), (("--debug",), 9)])
def test_of_warnings_that_are_alike_the_first_are_shown_and_the_rest_counted(arguments, shown, run_cli, monkeypatch):
    @click.command("ask")
    def ask():
        log = logging.getLogger("moai.somewhere")
        for number in range(9):
            log.warning("%s", f"picture {number} is odd")
        log.warning("another thing")

    monkeypatch.setattr(importlib.import_module("moai.cli.ask"), "ask", ask)
    for _ in range(2):  # a second command of the process counts anew
        lines = run_cli("ask", *arguments).stderr.splitlines()
        assert lines[: shown + 1] == [*(f"warning: picture {n} is odd" for n in range(shown)), "warning: another thing"]
        rest = [] if arguments else ["warning: picture 8 is odd (the last of 4 more like it; --debug shows all)"]
        assert lines[shown + 1 :] == rest
