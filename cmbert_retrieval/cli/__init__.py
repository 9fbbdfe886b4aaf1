"""The command ``cmbert``. One file a command group: parse, call one function, print."""

from __future__ import annotations

from cmbert_retrieval.cli._main import app, main

__all__ = ["app", "main"]
