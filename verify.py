"""Tell what is right and wrong on each box; nothing is changed."""

from pyinfra.context import config, host

from strixbox.config import Config
from strixbox.operations.release import release_for
from strixbox.run import begin
from tasks.verify import verify

config.REQUIRE_PYINFRA_VERSION = "~=3.10"
config.SUDO = True

cfg = Config.load(host.data.dict())
begin(cfg, entry="verify")
verify(cfg=cfg, release=release_for(cfg))
