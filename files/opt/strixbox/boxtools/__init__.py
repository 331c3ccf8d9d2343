"""The ``strixbox`` command on a box: renders, measures, watches and explains a ComfyUI machine.

It talks to ComfyUI over HTTP and its websocket, and reads the kernel's own files; it never imports
ComfyUI, so it needs no GPU, no torch, and no particular release of either.
"""
