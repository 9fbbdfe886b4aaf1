"""``python -m cmbert_retrieval`` is the command ``cmbert``."""

from __future__ import annotations

import sys

from cmbert_retrieval.cli import main

sys.exit(main())
