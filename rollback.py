"""Go back to the release before, or to --data release=ID, with its flags and variables."""

from pyinfra.context import config, host

from strixbox.command_line import told_data
from strixbox.config import Config
from strixbox.run import begin
from tasks.rollback import rollback

config.REQUIRE_PYINFRA_VERSION = "~=3.10"
config.SUDO = True

cfg = Config.load(host.data.dict())
begin(cfg, entry="rollback")
rollback(cfg=cfg, wanted=told_data("release"))
