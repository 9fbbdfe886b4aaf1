"""``cmbert finetune`` in one process of many: ``torchrun ... pretraining/finetune.py RECIPE --data FOLDER``.

Takes the options of ``cmbert finetune run``. Pairs, the teacher's vectors and negatives are prepared before,
by one process: ``cmbert finetune prepare``.
"""

from __future__ import annotations

import sys

from run import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], "finetune", "pretraining/finetune.py", "pairs"))
