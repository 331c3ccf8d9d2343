"""Starts the stand-in: flags, directories, nodes, then the server."""

import importlib.util
import logging
import os
import shutil
import sqlite3
import sys
import time

import comfy.options

comfy.options.enable_args_parsing()

import comfyui_version  # noqa: E402
import yaml  # noqa: E402
from comfy.cli_args import args  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = os.path.abspath(args.base_directory or HERE)
FOLDERS = ("checkpoints", "vae", "loras", "controlnet", "vae_approx", "embeddings")


def directory(name: str, chosen: str | None) -> str:
    """A directory of the base directory, or the one chosen by a flag."""
    path = os.path.abspath(chosen) if chosen else os.path.join(BASE, name)
    os.makedirs(path, exist_ok=True)
    return path


def fault(user: str) -> str | None:
    """The failure that a test asked for."""
    for word in ("crash-at-start", "hang", "http-500", "crash-after-ready"):
        asked = os.environ.get("STRIXBOX_STANDIN_FAULT") == word
        if asked or os.path.exists(os.path.join(user, word)):
            return word
        # A fault of the next commit alone: what an upgrade has to survive.
        newer = os.path.exists(os.path.join(HERE, "NEWER"))
        if newer and os.path.exists(os.path.join(user, f"newer-{word}")):
            return word
    return None


def extra_paths(files: list[str]) -> dict[str, list[str]]:
    """Paths by folder of every section of the given files."""
    found: dict[str, list[str]] = {}
    for file in files:
        with open(file, encoding="utf-8") as stream:
            sections = yaml.safe_load(stream)
        for section in sections.values():
            base = os.path.expandvars(os.path.expanduser(section.pop("base_path", "") or ""))
            section.pop("is_default", None)
            for folder, text in section.items():
                for line in (text or "").split("\n"):
                    if line:
                        found.setdefault(folder, []).append(os.path.join(base, line))
    return found


def load_nodes(places: list[str]) -> dict[str, object]:
    """Import every custom node; a failing one is logged and passed over."""
    nodes: dict[str, object] = {}
    times = []
    for place in places:
        for name in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            path = os.path.join(place, name)
            init = os.path.join(path, "__init__.py")
            if name.startswith((".", "__")) or name.endswith(".disabled"):
                continue
            if not os.path.isfile(init):
                continue
            begin = time.perf_counter()
            state = ""
            try:
                spec = importlib.util.spec_from_file_location(name.replace("-", "_"), init)
                module = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = module
                spec.loader.exec_module(module)
                nodes.update(module.NODE_CLASS_MAPPINGS)
            except Exception as error:
                logging.warning("Cannot import %s module for custom nodes: %s", path, error)
                state = " (IMPORT FAILED)"
            times.append((time.perf_counter() - begin, state, path))
    logging.info("\nImport times for custom nodes:")
    for seconds, state, path in times:
        logging.info("%6.1f seconds%s: %s", seconds, state, path)
    return nodes


def database(url: str) -> None:
    """Open the database; failing is logged, not fatal."""
    try:
        sqlite3.connect(url.removeprefix("sqlite:///")).execute("create table if not exists t (x)")
    except sqlite3.Error as error:
        logging.error("Failed to initialize database: %s", error)


def main() -> None:
    """Run the server, or end after loading with --quick-test-for-ci."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.info("Python version: %s", sys.version)
    logging.info("ComfyUI version: %s", comfyui_version.__version__)
    import torch

    logging.info("pytorch version: %s", torch.__version__)
    user = directory("user", args.user_directory)
    broken = fault(user)
    if broken == "crash-at-start":
        raise RuntimeError("told to crash at start")
    temp = os.path.join(os.path.abspath(args.temp_directory or BASE), "temp")
    shutil.rmtree(temp, ignore_errors=True)
    output = directory("output", args.output_directory)
    directory("input", args.input_directory)
    paths = extra_paths([f for files in args.extra_model_paths_config or [] for f in files])
    nodes = load_nodes([os.path.join(BASE, "custom_nodes"), *paths.get("custom_nodes", [])])
    database(args.database_url)
    if args.quick_test_for_ci:
        sys.exit(0)
    os.makedirs(temp, exist_ok=True)
    models = {
        folder: [os.path.join(BASE, "models", folder), *paths.get(folder, [])] for folder in FOLDERS
    }
    import server

    try:
        server.serve(args, nodes, models, output, broken)
    except KeyboardInterrupt:
        logging.info("\nStopped server")
    shutil.rmtree(temp, ignore_errors=True)


if __name__ == "__main__":
    main()
