"""Build the index of a recipe beside this file: ``python indexes/build.py pmc-oa --set source.path=PATH``.

The same as ``cmbert index build RECIPE --out DIR``, with the folder of recipes and ``built/`` filled in.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cmbert_retrieval.cli import main

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"

if __name__ == "__main__":
    name, *options = sys.argv[1:] or ["--help"]
    if name.startswith("-"):
        sys.exit(f"{__doc__}\nRecipes: {', '.join(sorted(path.stem for path in RECIPES.glob('*.yaml')))}")
    recipe = RECIPES / f"{name}.yaml"
    out = [] if "--out" in options else ["--out", str(HERE / "built" / name)]
    sys.exit(main(["index", "build", str(recipe) if recipe.is_file() else name, *options, *out]))
