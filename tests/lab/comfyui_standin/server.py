"""The HTTP calls that provisioning and its tests use."""

import asyncio
import logging
import os
import sys
import uuid

import comfyui_version
import torch
from aiohttp import web

CORE = {
    "CheckpointLoaderSimple": "checkpoints",
    "VAELoader": "vae",
    "LoraLoader": "loras",
    "ControlNetLoader": "controlnet",
}
PLAIN = (
    *("CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode", "VAEEncode"),
    *("VAEDecodeTiled", "VAEEncodeTiled", "SaveImage", "LoadImage"),
)
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt")


class Server:
    """State of the running server."""

    def __init__(self, nodes, models, broken):
        self.nodes = nodes
        self.models = models
        self.broken = broken
        self.history = {}

    def files(self, folder):
        """Models of a folder in every place it is looked for."""
        found = set()
        for place in self.models.get(folder, []):
            if os.path.isdir(place):
                found.update(n for n in os.listdir(place) if n.endswith(SUFFIXES))
        return sorted(found)

    def info(self):
        """What /object_info tells of every node."""
        told = {name: {"input": {"required": {}}, "name": name} for name in (*PLAIN, *self.nodes)}
        for name, folder in CORE.items():
            told[name] = {"input": {"required": {folder: [self.files(folder), {}]}}, "name": name}
        return told

    async def system_stats(self, request):
        """Versions and flags."""
        if self.broken == "http-500":
            raise web.HTTPInternalServerError(text="told to fail")
        if self.broken == "hang":
            await asyncio.sleep(3600)
        if self.broken == "crash-after-ready":
            asyncio.get_running_loop().call_later(0.5, os._exit, 1)
        return web.json_response(
            {
                "system": {
                    "comfyui_version": comfyui_version.__version__,
                    "pytorch_version": torch.__version__,
                    "argv": sys.argv,
                },
                "devices": [],
            }
        )

    async def object_info(self, request):
        """All nodes, or the one asked for."""
        told = self.info()
        name = request.match_info.get("name")
        return web.json_response({name: told[name]} if name in told else {} if name else told)

    async def folders(self, request):
        """Names of the model folders, or the files of one."""
        folder = request.match_info.get("folder")
        return web.json_response(self.files(folder) if folder else sorted(self.models))

    async def prompt(self, request):
        """Queue a workflow: here it is done at once."""
        if request.method == "GET":
            return web.json_response({"exec_info": {"queue_remaining": 0}})
        graph = (await request.json()).get("prompt") or {}
        unknown = [n["class_type"] for n in graph.values() if n["class_type"] not in self.info()]
        if unknown or not graph:
            error = {"type": "invalid_prompt", "message": f"unknown nodes: {unknown}"}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        ident = str(uuid.uuid4())
        self.history[ident] = {"prompt": graph, "outputs": {}, "status": {"completed": True}}
        return web.json_response({"prompt_id": ident, "number": 1, "node_errors": {}})

    async def past(self, request):
        """What was done."""
        ident = request.match_info.get("ident")
        done = self.history
        return web.json_response({k: v for k, v in done.items() if ident in (None, k)})

    async def queue(self, request):
        """Nothing ever waits."""
        return web.json_response({"queue_running": [], "queue_pending": []})

    async def page(self, request):
        """A page for a browser."""
        return web.Response(
            text="<!DOCTYPE html><title>ComfyUI stand-in</title>", content_type="text/html"
        )


def serve(args, nodes, models, output, broken):
    """Listen until SIGINT."""
    server = Server(nodes, models, broken)
    app = web.Application()
    app.router.add_get("/", server.page)
    for prefix in ("", "/api"):
        app.router.add_get(prefix + "/system_stats", server.system_stats)
        app.router.add_get(prefix + "/object_info", server.object_info)
        app.router.add_get(prefix + "/object_info/{name}", server.object_info)
        app.router.add_get(prefix + "/models", server.folders)
        app.router.add_get(prefix + "/models/{folder}", server.folders)
        app.router.add_route("*", prefix + "/prompt", server.prompt)
        app.router.add_get(prefix + "/history", server.past)
        app.router.add_get(prefix + "/history/{ident}", server.past)
        app.router.add_get(prefix + "/queue", server.queue)
    logging.info("Starting server\n")
    logging.info("To see the GUI go to: http://%s:%s", args.listen, args.port)
    hosts = args.listen.split(",")
    web.run_app(app, host=hosts, port=args.port, print=None, handle_signals=True, access_log=None)
    logging.info("Stopped server")
