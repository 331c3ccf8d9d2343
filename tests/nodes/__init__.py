"""The node packs: their own logic here, all of it in the real ComfyUI where there is one."""
