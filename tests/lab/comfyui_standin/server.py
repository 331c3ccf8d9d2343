"""ComfyUI's HTTP calls and websocket, as far as tools use them."""

import asyncio
import io
import json
import logging
import mimetypes
import os
import struct
import sys
import threading
import uuid

import comfyui_version
import execution
import faults
import folder_paths
import gpu
import nodes
import torch
from aiohttp import WSMsgType, web
from comfy import model_management, utils
from comfy.cli_args import args
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

PREVIEW_IMAGE = 1  # number of a binary message with a picture
JPEG = 1


def no_content(status):
    """An answer without a body."""
    return web.Response(status=status)


class PromptServer:
    """State of the running server; node packs find it as ``PromptServer.instance``."""

    instance = None

    def __init__(self, loop):
        PromptServer.instance = self
        self.loop = loop
        self.routes = web.RouteTableDef()  # node packs add to it
        self.sockets = {}
        self.messages = asyncio.Queue()
        self.client_id = None
        self.last_node_id = None
        self.number = 0
        self.prompt_queue = execution.PromptQueue(self)
        self.executor = execution.PromptExecutor(self)

    # --- messages ---

    def send_sync(self, event, data, sid=None):
        """Send a message, to one client or to all, from any thread."""
        self.loop.call_soon_threadsafe(self.messages.put_nowait, (event, data, sid))

    def queue_updated(self):
        """Tell everybody how long the queue is."""
        self.send_sync("status", {"status": self.queue_info()})

    def queue_info(self):
        """How long the queue is."""
        return {"exec_info": {"queue_remaining": self.prompt_queue.remaining()}}

    def send_preview(self, preview, sid):
        """Send a picture of how far the sampler is."""
        self.send_sync(PREVIEW_IMAGE, preview, sid)

    def send_garbage(self, prompt_id):
        """Send what a careless node pack may send: all of it is to be passed over."""
        rows = [None, [], 5, "text", {}, {"type": 5}, {"type": None, "data": []}]
        rows += [{"type": "progress", "data": None}, {"type": "progress", "data": [1, 2]}]
        odd = {"value": float("nan"), "max": 1e999, "node": ["x", {}], "prompt_id": prompt_id}
        rows += [{"type": "progress", "data": odd}, {"type": "[red]", "data": odd}]
        rows += [{"type": "progress", "data": {"value": "many", "max": [], "prompt_id": prompt_id}}]
        for text in [*map(json.dumps, rows), "", "{", "\x00", "[" * 50000]:
            self.send_sync(None, text, self.client_id)
        for raw in (b"", b"\x00", b"\xff" * 9, struct.pack(">I", PREVIEW_IMAGE)):
            self.send_sync(None, raw, self.client_id)

    async def publish(self):
        """Send what was queued for sending, for ever."""
        while True:
            event, data, sid = await self.messages.get()
            known = list(self.sockets.values()) if sid is None else [self.sockets.get(sid)]
            for socket in filter(None, known):
                try:
                    await self.send(socket, event, data)
                except (ConnectionError, RuntimeError) as error:
                    logging.warning("send error: %s", error)

    @staticmethod
    async def send(socket, event, data):
        """One message to one client."""
        if isinstance(data, bytes):
            await socket.send_bytes(data)
        elif event is None:
            await socket.send_str(data)
        elif event == PREVIEW_IMAGE:
            kind, image, side = data
            stream = io.BytesIO(struct.pack(">II", PREVIEW_IMAGE, JPEG))
            stream.seek(0, io.SEEK_END)
            ImageOps.contain(image, (side, side)).save(stream, format=kind, quality=95)
            await socket.send_bytes(stream.getvalue())
        else:
            await socket.send_str(json.dumps({"type": event, "data": data}))

    async def websocket(self, request):
        """A client's connection."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId", "") or uuid.uuid4().hex
        self.sockets[sid] = socket
        try:
            await self.send(socket, "status", {"status": self.queue_info(), "sid": sid})
            if self.client_id == sid and self.last_node_id is not None:
                await self.send(socket, "executing", {"node": self.last_node_id})
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    logging.debug("client %s says %s", sid, message.data)
        finally:
            if self.sockets.get(sid) is socket:
                del self.sockets[sid]
        return socket

    # --- what is there ---

    async def page(self, request):
        """A page for a browser."""
        text = "<!DOCTYPE html><title>ComfyUI stand-in</title>"
        return web.Response(text=text, content_type="text/html")

    async def system_stats(self, request):
        """Versions, flags and the device."""
        if faults.asked("http-500"):
            raise web.HTTPInternalServerError(text="told to fail")
        if faults.asked("hang"):
            await asyncio.sleep(3600)
        if faults.asked("crash-after-ready"):
            asyncio.get_running_loop().call_later(0.5, os._exit, 1)
        total, free = gpu.memory()
        system = {
            **{"os": os.name, "ram_total": total, "ram_free": free},
            "comfyui_version": comfyui_version.__version__,
            **{"required_frontend_version": "1.27.10", "installed_templates_version": "0.1.94"},
            "required_templates_version": "0.1.94",
            "python_version": sys.version,
            "pytorch_version": torch.__version__,
            "embedded_python": False,
            "argv": sys.argv,
        }
        return web.json_response({"system": system, "devices": [gpu.device()]})

    async def features(self, request):
        """What this server can do."""
        told = {"supports_preview_metadata": True, "max_upload_size": self.max_upload()}
        return web.json_response(told)

    async def object_info(self, request):
        """All nodes, or the one asked for."""
        name = request.match_info.get("name")
        wanted = (
            nodes.NODE_CLASS_MAPPINGS if name is None else {name} & {*nodes.NODE_CLASS_MAPPINGS}
        )
        told = {}
        for one in wanted:
            try:
                told[one] = nodes.info(one)
            except Exception:
                logging.exception("[ERROR] no information about the node '%s'", one)
        return web.json_response(told)

    async def folders(self, request):
        """Names of the model folders, or the files of one."""
        folder = request.match_info.get("folder")
        if folder is None:
            return web.json_response(list(folder_paths.folder_names_and_paths))
        if folder not in folder_paths.folder_names_and_paths:
            return no_content(404)
        return web.json_response(folder_paths.get_filename_list(folder))

    async def embeddings(self, request):
        """Names of the embeddings."""
        names = folder_paths.get_filename_list("embeddings")
        return web.json_response([os.path.splitext(name)[0] for name in names])

    # --- prompts ---

    async def get_prompt(self, request):
        """How long the queue is."""
        return web.json_response(self.queue_info())

    async def post_prompt(self, request):
        """Queue a prompt, or say what is wrong with it."""
        logging.info("got prompt")
        told = await request.json()
        if "number" in told:
            number = float(told["number"])
        else:
            number = -self.number if told.get("front") else self.number
            self.number += 1
        if "prompt" not in told:
            text = "No prompt provided"
            error = execution.problem("no_prompt", text, text)
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        prompt = told["prompt"]
        ident = str(told.get("prompt_id", uuid.uuid4()))
        partial = told.get("partial_execution_targets")
        valid, error, outputs, errors = execution.validate_prompt(prompt, partial)
        if not valid:
            logging.warning("invalid prompt: %s", error)
            return web.json_response({"error": error, "node_errors": errors}, status=400)
        extra = told.get("extra_data", {})
        if "client_id" in told:
            extra["client_id"] = told["client_id"]
        self.prompt_queue.put((number, ident, prompt, extra, outputs))
        return web.json_response({"prompt_id": ident, "number": number, "node_errors": errors})

    async def get_queue(self, request):
        """What runs and what waits."""
        running, waiting = self.prompt_queue.current()
        return web.json_response({"queue_running": running, "queue_pending": waiting})

    async def post_queue(self, request):
        """Take prompts out of the queue."""
        told = await request.json()
        if told.get("clear"):
            self.prompt_queue.delete()
        for ident in told.get("delete", []):
            self.prompt_queue.delete(ident)
        return no_content(200)

    async def get_history(self, request):
        """What was done."""
        words = {k: int(request.query[k]) for k in ("max_items", "offset") if k in request.query}
        return web.json_response(self.prompt_queue.get_history(**words))

    async def get_history_of(self, request):
        """What became of one prompt."""
        return web.json_response(self.prompt_queue.get_history(request.match_info["ident"]))

    async def post_history(self, request):
        """Forget what was done."""
        told = await request.json()
        if told.get("clear"):
            self.prompt_queue.history = {}
        for ident in told.get("delete", []):
            self.prompt_queue.history.pop(ident, None)
        return no_content(200)

    async def interrupt(self, request):
        """Stop what runs, or that prompt if it is what runs."""
        try:
            wanted = (await request.json()).get("prompt_id")
        except json.JSONDecodeError:
            wanted = None
        running, _ = self.prompt_queue.current()
        if not wanted or any(item[1] == wanted for item in running):
            model_management.interrupt_current_processing()
        return no_content(200)

    async def free(self, request):
        """Give memory back when idle."""
        told = await request.json()
        for flag in ("unload_models", "free_memory"):
            if told.get(flag):
                self.prompt_queue.set_flag(flag, True)
        return no_content(200)

    # --- images ---

    async def upload_image(self, request):
        """Keep a picture."""
        post = await request.post()
        return self.upload(post, lambda file, path: self.keep(file, path))

    async def upload_mask(self, request):
        """Keep a picture of the input directory with the alpha channel of another."""
        post = await request.post()
        reference = json.loads(post["original_ref"])

        def masked(file, path):
            place = folder_paths.get_directory_by_type(reference.get("type", "output"))
            original = os.path.join(place, reference.get("subfolder", ""), reference["filename"])
            if os.path.isfile(original):
                with Image.open(original) as image, Image.open(file) as mask:
                    told = PngInfo()
                    for key, value in getattr(image, "text", {}).items():
                        told.add_text(key, value)
                    picture = image.convert("RGBA")
                    picture.putalpha(mask.convert("RGBA").getchannel("A"))
                    picture.save(path, pnginfo=told, compress_level=4)

        return self.upload(post, masked)

    @staticmethod
    def keep(file, path):
        """Write an uploaded file."""
        with open(path, "wb") as stream:
            stream.write(file.read())

    @staticmethod
    def upload(post, write):
        """Find a name for an uploaded picture and keep it."""
        image, kind = post.get("image"), post.get("type") or "input"
        place = folder_paths.get_directory_by_type(kind)
        if place is None or not getattr(image, "filename", None):
            return no_content(400)
        name, subfolder = image.filename, post.get("subfolder", "")
        folder = os.path.join(place, os.path.normpath(subfolder))
        path = os.path.abspath(os.path.join(folder, name))
        if os.path.commonpath((place, path)) != place:
            return no_content(400)
        os.makedirs(folder, exist_ok=True)
        stem, suffix = os.path.splitext(name)
        number = 1
        while post.get("overwrite") not in ("true", "1") and os.path.exists(path):
            with open(path, "rb") as stream:
                same = stream.read() == image.file.read()
            image.file.seek(0)
            if same:
                break
            name = f"{stem} ({number}){suffix}"
            path = os.path.join(folder, name)
            number += 1
        write(image.file, path)
        return web.json_response({"name": name, "subfolder": subfolder, "type": kind})

    async def view(self, request):
        """A picture."""
        name, place = folder_paths.annotated_filepath(request.query.get("filename", ""))
        if not name:
            return no_content(400 if "filename" in request.query else 404)
        if name[0] == "/" or ".." in name:
            return no_content(400)
        place = place or folder_paths.get_directory_by_type(request.query.get("type", "output"))
        if place is None:
            return no_content(400)
        folder = os.path.abspath(os.path.join(place, request.query.get("subfolder", "")))
        if os.path.commonpath((folder, place)) != place:
            return no_content(403)
        name = os.path.basename(name)
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            return no_content(404)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        told = {"Content-Disposition": f'filename="{name}"', "Content-Type": kind}
        return web.FileResponse(path, headers=told)

    # --- the simulated GPU ---

    async def get_tunableop(self, request):
        """State of TunableOp."""
        return web.json_response(gpu.tunableop.told())

    async def post_tunableop(self, request):
        """Switch tuning, write the results."""
        if not gpu.tunableop.set(await request.json()):
            error = f"torch could not write {gpu.tunableop.filename}"
            return web.json_response({"error": error}, status=409)
        return web.json_response(gpu.tunableop.told())

    # --- serving ---

    @staticmethod
    def max_upload():
        """Bytes of a request's body at most."""
        return round(args.max_upload_size * 1024 * 1024)

    def own_routes(self):
        """Method, path and handler."""
        routes = [
            *(("GET", "/ws", self.websocket), ("GET", "/", self.page)),
            *(("GET", "/system_stats", self.system_stats), ("GET", "/features", self.features)),
            ("GET", "/object_info", self.object_info),
            ("GET", "/object_info/{name}", self.object_info),
            *(("GET", "/models", self.folders), ("GET", "/models/{folder}", self.folders)),
            ("GET", "/embeddings", self.embeddings),
            *(("GET", "/prompt", self.get_prompt), ("POST", "/prompt", self.post_prompt)),
            *(("GET", "/queue", self.get_queue), ("POST", "/queue", self.post_queue)),
            *(("GET", "/history", self.get_history), ("POST", "/history", self.post_history)),
            ("GET", "/history/{ident}", self.get_history_of),
            *(("POST", "/interrupt", self.interrupt), ("POST", "/free", self.free)),
            *(("POST", "/upload/image", self.upload_image), ("GET", "/view", self.view)),
            ("POST", "/upload/mask", self.upload_mask),
        ]
        if gpu.SIMULATED:
            path = "/strixbox/tunableop"
            routes += [("GET", path, self.get_tunableop), ("POST", path, self.post_tunableop)]
        return routes

    def application(self):
        """All routes, also below /api; a pack's route in place of one of ours is left out."""
        app = web.Application(client_max_size=self.max_upload())
        ours = self.own_routes()
        taken = {(method, path) for method, path, _ in ours}
        packs = [
            (route.method, route.path, route.handler)
            for route in self.routes
            if isinstance(route, web.RouteDef) and (route.method, route.path) not in taken
        ]
        for method, path, handler in [*ours, *packs]:
            for prefix in ("", "/api"):
                app.router.add_route(method, prefix + path, handler)
        return app

    async def serve(self):
        """Listen until this is cancelled."""
        runner = web.AppRunner(self.application(), access_log=None)
        await runner.setup()
        logging.info("Starting server\n")
        for host in args.listen.split(","):
            await web.TCPSite(runner, host, args.port).start()
            logging.info("To see the GUI go to: http://%s:%s", host, args.port)
        utils.set_progress_bar_global_hook(self.executor.hook)
        work = (self.prompt_queue, self.executor, self)
        threading.Thread(target=execution.worker, args=work, daemon=True).start()
        await self.publish()
