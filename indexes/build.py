"""Build the index of a recipe, as in ``indexes/recipes/pmc-oa.yaml --set source.path=PATH``.

The same as ``cmbert index build RECIPE --out DIR``, with ``built/`` beside this file as the place. Of the
recipes beside it the name is enough: ``pmc-oa``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cmbert_retrieval.cli import main
from cmbert_retrieval.config import bundled_recipes
from cmbert_retrieval.recipe_files import did_you_mean

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"

if __name__ == "__main__":
    name, *options = sys.argv[1:] or ["--help"]
    known = sorted([*(path.stem for path in RECIPES.glob("*.yaml")), *bundled_recipes()])
    if name.startswith("-"):
        sys.exit(f"{__doc__}\nRecipes: {', '.join(known)}")
    if Path(name).name == name and not Path(name).suffix and name not in known:
        hint = did_you_mean(name, known)
        sys.exit(f"cmbert: no recipe '{name}'; there are {', '.join(known)}, or a path to a .yaml file{hint}")
    beside = RECIPES / f"{name}.yaml"
    out = [] if "--out" in options else ["--out", str(HERE / "built" / Path(name).stem)]
    sys.exit(main(["index", "build", str(beside) if beside.is_file() else name, *options, *out]))
