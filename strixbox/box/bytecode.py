"""Writer: byte code of Python files that whoever runs them may not write.

Without it each start compiles them anew: ComfyUI's few hundred files take seconds. Only what stands
in the files is read, nothing of it is run; and byte code that is missing costs no more than time,
so a file that does not compile is passed over.
"""

from __future__ import annotations

import compileall
import json
import re
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any


def main(order: dict[str, Any]) -> None:
    """``{"paths", "without"}``: directories, and a regular expression of what nobody loads."""
    without = re.compile(order["without"]) if order["without"] else None
    for path in order["paths"]:
        try:
            compileall.compile_dir(path, quiet=2, workers=0, rx=without)
        except (OSError, BrokenProcessPool):  # no memory for several at once, or no semaphores
            compileall.compile_dir(path, quiet=2, rx=without)


if __name__ == "__main__":
    main(json.load(sys.stdin))
