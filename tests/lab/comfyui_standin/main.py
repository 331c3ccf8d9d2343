"""Starts the stand-in: flags, directories, nodes, then the server."""

import asyncio
import importlib.util
import itertools
import logging
import os
import shutil
import sqlite3
import sys
import time

import comfy.options

comfy.options.enable_args_parsing()

import comfyui_version  # noqa: E402
import faults  # noqa: E402
import folder_paths  # noqa: E402
from comfy.cli_args import args  # noqa: E402


def load_nodes():
    """Import every custom node; a failing one is logged and passed over."""
    import nodes

    times = []
    for place in folder_paths.get_folder_paths("custom_nodes"):
        for name in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            path = os.path.join(place, name)
            stem, suffix = os.path.splitext(name)
            file = path if suffix == ".py" else os.path.join(path, "__init__.py")
            off = args.disable_all_custom_nodes and name not in args.whitelist_custom_nodes
            if name.startswith((".", "__")) or name.endswith(".disabled") or off:
                continue
            if not os.path.isfile(file):
                continue
            begin = time.perf_counter()
            state = ""
            try:
                spec = importlib.util.spec_from_file_location(path.replace(".", "_x_"), file)
                module = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = module
                spec.loader.exec_module(module)
                for title, node in module.NODE_CLASS_MAPPINGS.items():
                    node.RELATIVE_PYTHON_MODULE = f"custom_nodes.{stem}"
                    nodes.NODE_CLASS_MAPPINGS[title] = node
                shown = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
                nodes.NODE_DISPLAY_NAME_MAPPINGS.update(shown)
            except Exception as error:
                logging.warning("Cannot import %s module for custom nodes: %s", path, error)
                state = " (IMPORT FAILED)"
            times.append((time.perf_counter() - begin, state, path))
    logging.info("\nImport times for custom nodes:")
    for seconds, state, path in times:
        logging.info("%6.1f seconds%s: %s", seconds, state, path)


def database(url):
    """Open the database; failing is logged, not fatal."""
    try:
        sqlite3.connect(url.removeprefix("sqlite:///")).execute("create table if not exists t (x)")
    except sqlite3.Error as error:
        logging.error("Failed to initialize database: %s", error)


def main():
    """Run the server, or end after loading with --quick-test-for-ci."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("Python version: %s", sys.version)
    logging.info("ComfyUI version: %s", comfyui_version.__version__)
    import torch

    logging.info("pytorch version: %s", torch.__version__)
    for kind in ("user", "output", "input"):
        os.makedirs(getattr(folder_paths, f"get_{kind}_directory")(), exist_ok=True)
    if faults.asked("crash-at-start"):
        raise RuntimeError("told to crash at start")
    temp = folder_paths.get_temp_directory()
    shutil.rmtree(temp, ignore_errors=True)
    for file in itertools.chain(*(args.extra_model_paths_config or [])):
        folder_paths.load_extra_paths(file)

    import server

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    prompt_server = server.PromptServer(loop)
    load_nodes()
    database(args.database_url)
    if args.quick_test_for_ci:
        sys.exit(0)
    os.makedirs(temp, exist_ok=True)
    try:
        loop.run_until_complete(prompt_server.serve())
    except KeyboardInterrupt:
        logging.info("\nStopped server")
    shutil.rmtree(temp, ignore_errors=True)


if __name__ == "__main__":
    main()
