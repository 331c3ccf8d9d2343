"""Reader: whether the box gets an answer from a URL."""

from __future__ import annotations

import json
import sys
import urllib.request
from http.client import HTTPException
from typing import Any


def main(query: dict[str, Any]) -> str:
    """``{"url"}`` -> empty where it is answered, else why not."""
    try:
        with urllib.request.urlopen(query["url"], timeout=20) as answer:  # noqa: S310 - by schema
            answer.read(1)
    except (OSError, ValueError, HTTPException) as error:
        return str(getattr(error, "reason", error)) or "no answer"
    return ""


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
