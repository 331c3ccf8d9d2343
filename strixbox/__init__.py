"""The toolkit's control side."""

import sys

# pyinfra switches byte code off, for deploy.py; modules that are imported after that, ours and
# pydantic among them, would be compiled anew by every run.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
