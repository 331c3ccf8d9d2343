"""Take strixbox off the boxes; --data purge_rocm=true takes AMD's packages as well."""

from pyinfra.context import config, host

from strixbox.command_line import told_data
from strixbox.config import Config
from strixbox.run import begin
from tasks.uninstall import uninstall

config.REQUIRE_PYINFRA_VERSION = "~=3.10"
config.SUDO = True

cfg = Config.load(host.data.dict())
begin(cfg, entry="uninstall")
uninstall(cfg=cfg, purge_rocm=told_data("purge_rocm") == "true")
