"""Whether the flags of this process are to be parsed when cli_args is imported."""

args_parsing = False


def enable_args_parsing(enable: bool = True) -> None:
    """Switch parsing on or off."""
    global args_parsing
    args_parsing = enable
