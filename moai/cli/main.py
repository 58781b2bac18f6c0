"""The ``moai`` command: finds a subcommand, imports only that one, and turns our errors into one sentence.

Knows: the names of the commands and where each is. ``moai --help`` imports click, pluggy where plugins
have commands, and nothing else of weight; a command of moai's own looks for no plugins.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import click

import moai
from moai.cli.own_stdout import own_stdout
from moai.errors import MoaiError, PluginError, nearest
from moai.our_plugins import how_to_install

COMMANDS = {  # name -> (where it is, one line of help); pinned to the commands' own help by a test
    "quickstart": ("moai.cli.quickstart:quickstart", "Do the whole main job: assets, perceive, train, evaluate, ask."),
    "experts": ("moai.cli.experts:experts", "List the experts that are registered, and whether they can run."),
    "new-expert": ("moai.cli.new_expert:new_expert", "Write a plugin package with an expert to start from."),
    "new-dataset": ("moai.cli.new_dataset:new_dataset", "Write a plugin package with a data format to start from."),
    "perceive": ("moai.cli.perceive:perceive", "Show what the experts find in images."),
    "perceive-dataset": (
        "moai.cli.perceive_dataset:perceive_dataset",
        "Perceive a whole data set, as Parquet shards.",
    ),
    "cache": ("moai.cli.cache:cache", "Show, check or empty the cache of perceptions."),
    "data": ("moai.cli.data:data", "Check data before anything trains."),
    "train": ("moai.cli.train:train", "Train a recipe's mixers around its frozen host."),
    "eval": ("moai.cli.evaluate:evaluate", "Measure a run with perception on, off and shuffled."),
    "compare": ("moai.cli.compare:compare", "Set a run beside a baseline run, question by question."),
    "ablate": ("moai.cli.ablate:ablate", "Train and evaluate a folder of ablations, and print one table."),
    "ask": ("moai.cli.ask:ask", "Ask a question about an image."),
    "import-llava": ("moai.cli.import_llava:import_llava", "Convert a LLaVA checkpoint into a run folder."),
    "export-llava": ("moai.cli.export_llava:export_llava", "Convert a run into a LLaVA checkpoint."),
    "plan": ("moai.cli.plan:plan", "Say what a recipe needs in memory, or a corpus in hours and disk."),
    "doctor": ("moai.cli.doctor:doctor", "Say what is installed, what fits, and what must be fixed."),
}
SHOWN = 5  # warnings from one line of code that are shown one by one
RESUME = "moai.resume"  # ctx.meta: the command line that continues what a Ctrl-C stops


def options_given(context: click.Context) -> list[str]:
    """The options of the running command that differ from their defaults, as they are written; for ``RESUME``."""
    words: list[str] = []
    for option in context.command.params:
        value = context.params.get(option.name)
        if not isinstance(option, click.Option):
            continue  # an argument: the caller knows where it stands
        if value is True:
            words.append(option.opts[0])
        elif isinstance(value, tuple):
            words += [word for one in value for word in (option.opts[0], one)]
        elif value not in (None, False, option.default):
            words += [option.opts[0], str(value)]
    return words


class LazyGroup(click.Group):
    """A group whose commands are imported when they run, and whose errors end in a sentence and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List names in the order of the main job, then those of plugins."""
        return list(all_commands())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command's module, and let it take ``--debug`` as well."""
        found = COMMANDS.get(name) or plugin_commands().get(name)
        if found is None:
            return None
        command = _import_command(name, found[0])
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug_option(hidden=True))
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Resolve as click does, with the nearest name for a misspelt command."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and args[0] not in plugin_commands():
            install = how_to_install("command", args[0])
            hint = f"; it comes with a plugin: {install}" if install else nearest(args[0], all_commands())
            ctx.fail(f"no command '{args[0]}'{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the tables, so that help imports none of them."""
        with formatter.section("Commands"):
            # A longer name has its line below it, so that it does not push all lines to the right and make them wrap.
            formatter.write_dl([(name, line) for name, (_, line) in all_commands().items()], col_max=10)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a MoaiError is one sentence, a Ctrl-C says how to go on, a logged warning is shown."""
        log = logging.getLogger("moai")
        echo = next((handler for handler in log.handlers if isinstance(handler, _Echo)), None)
        if echo is None:
            echo = _Echo(logging.WARNING)
            log.addHandler(echo)
        echo.start(lambda: _debugging(ctx))  # read as late as that: a subcommand takes --debug as well
        # It warns of a kernel that no host of ours uses, whenever something imports it: peft does.
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
        try:
            with own_stdout():
                return super().invoke(ctx)
        except MoaiError as error:
            if _debugging(ctx):
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            if _debugging(ctx):
                raise
            resume = ctx.meta.get(RESUME)
            click.echo(f"\nstopped; continue with: {resume}" if resume else "\nstopped", err=True)
            ctx.exit(130)
        finally:
            echo.report_unshown()


def plugin_commands() -> dict[str, tuple[str, str]]:
    """Return the commands of plugins, as ``COMMANDS``; a name that is moai's own means moai's."""
    from moai.plugins import load_commands  # here: most commands are moai's own, and need no plugin to be looked for

    return {name: command for name, command in load_commands().items() if name not in COMMANDS}


def all_commands() -> dict[str, tuple[str, str]]:
    """Return moai's own commands, then those of plugins."""
    return {**COMMANDS, **plugin_commands()}


def _import_command(name: str, target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in COMMANDS:
            raise
        raise PluginError(
            f"the command '{name}' cannot be imported ({error}); update or uninstall the plugin that brings it"
        ) from error
    if not isinstance(command, click.Command):
        raise PluginError(f"the command '{name}' is no click command at {target}; update or uninstall its plugin")
    return command


class _Echo(logging.Handler):
    """Shows warnings; of those from one line of code the first few, and how many more there were."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.start()

    def start(self, everything: Callable[[], bool] = lambda: False) -> None:
        self._everything = everything
        self._seen: Counter[tuple[str, int]] = Counter()
        self._last: dict[tuple[str, int], str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        place = (record.pathname, record.lineno)
        self._seen[place] += 1
        text = "".join(char if char.isprintable() else " " for char in record.getMessage())
        self._last[place] = f"{record.levelname.lower()}: {text}"
        if self._everything() or self._seen[place] <= SHOWN:
            click.echo(self._last[place], err=True)

    def report_unshown(self) -> None:
        for place, times in self._seen.items():
            if times > SHOWN and not self._everything():
                more = times - SHOWN
                click.echo(f"{self._last[place]} (the last of {more} more like it; --debug shows all)", err=True)
        self.start()


def _debug_option(hidden: bool = False) -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        hidden=hidden,
        help="Show tracebacks (MOAI_DEBUG=1 does the same).",
        callback=lambda ctx, _, value: ctx.find_root().ensure_object(dict).update(debug=True) if value else None,
    )


def _debugging(ctx: click.Context) -> bool:
    return bool(ctx.find_root().ensure_object(dict).get("debug")) or os.environ.get("MOAI_DEBUG", "") not in ("", "0")


@click.group(
    cls=LazyGroup,
    params=[_debug_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with: moai quickstart. Each command has its own --help.",
)
@click.version_option(moai.__version__, prog_name="moai")
def cli() -> None:
    """Let a frozen language model use what specialist vision models find."""


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="moai")


if __name__ == "__main__":
    main()
