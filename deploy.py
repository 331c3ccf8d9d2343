"""Provision a Strix Halo box. Order is meaning: one call a line, top to bottom."""

from pyinfra.context import config, host

from strixbox.config import Config
from strixbox.operations.release import release_for
from strixbox.run import begin
from tasks.base import base
from tasks.comfyui import comfyui
from tasks.launch import launch
from tasks.leftovers import leftovers
from tasks.models import models
from tasks.preflight import preflight
from tasks.purge import purge
from tasks.python import python
from tasks.rocm import rocm
from tasks.service import service
from tasks.tmpfs import tmpfs
from tasks.tools import tools
from tasks.verify import verify

config.REQUIRE_PYINFRA_VERSION = "~=3.10"
config.SUDO = True

cfg = Config.load(host.data.dict())
begin(cfg)
release = release_for(cfg)

preflight(cfg=cfg, release=release)
leftovers(cfg=cfg, release=release)
purge(cfg=cfg.rocm)
base(box=cfg.box)
rocm(cfg=cfg.rocm)
python(cfg=cfg, release=release)
comfyui(cfg=cfg, release=release)
tmpfs(cfg=cfg.tmpfs, box=cfg.box)
models(cfg=cfg.models, comfyui=cfg.comfyui, box=cfg.box)
tools(cfg=cfg)
launch(box=cfg.box)
service(cfg=cfg, release=release)
verify(cfg=cfg, release=release)
