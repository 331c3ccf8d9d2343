from strixbox.config import Config


def preflight(cfg: Config) -> None: ...
