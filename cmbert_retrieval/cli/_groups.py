"""Groups of commands: one that imports its commands when they are called, one that knows its main verb."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

ANYWHERE = ("--debug", "--quiet", "--verbose", "-q", "-v")
"""Global options that may also stand behind the command: people add them to the line that has just failed."""


class LazyCommand(TyperCommand):
    """What ``--help`` needs to know about a command whose module is not imported yet.

    Attributes:
        target: ``module:attribute``, where the attribute is a function or a ``typer.Typer``.
    """

    def __init__(self, name: str, *, help: str, target: str) -> None:
        super().__init__(name=name, help=help, short_help=help, callback=None)
        self.target = target

    def load(self) -> Any:
        """Import the target and return it as the command that Typer runs."""
        module, _, attribute = self.target.partition(":")
        loaded = getattr(import_module(module), attribute)
        holder = typer.Typer(add_completion=False)
        if isinstance(loaded, typer.Typer):
            holder.add_typer(loaded, name=self.name)
        else:
            holder.command(self.name)(loaded)
        return typer.main.get_group(holder).commands[str(self.name)]


class RootGroup(TyperGroup):
    """The top of the command: lists ``LazyCommand`` objects, loads the one that is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the global options of ``ANYWHERE`` to the front, then parse as usual."""
        return super().parse_args(ctx, _global_options_first(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that ``args`` calls, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest


def lazily(*commands: LazyCommand) -> type[RootGroup]:
    """Return a group class for ``typer.Typer(cls=...)`` that holds these commands, in this order."""

    class Lazily(RootGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for command in commands:
                self.add_command(command)

    return Lazily


def falls_through_to(verb: str) -> type[TyperGroup]:
    """Return a group class for ``typer.Typer(cls=...)`` that adds ``verb`` when no subcommand is named.

    ``cmbert codes "heart attack"`` is then ``cmbert codes search "heart attack"``, and so is
    ``cmbert codes -k 3 "heart attack"``. A query that is itself the name of a subcommand follows ``--``.
    """

    class FallsThrough(TyperGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
            if args and args[0] not in self.commands and args[0] not in own:
                args = [verb, *args]
            return super().parse_args(ctx, args)

    return FallsThrough


def _global_options_first(args: list[str]) -> list[str]:
    end = args.index("--") if "--" in args else len(args)
    front = [arg for arg in args[:end] if arg in ANYWHERE]
    return front + [arg for arg in args[:end] if arg not in ANYWHERE] + args[end:]
