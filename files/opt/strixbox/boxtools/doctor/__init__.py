"""``strixbox doctor``: gathers facts about the box once, judges them, explains errors, mends.

``facts`` reads and never judges, ``checks`` judge and never read, ``fixes`` change what is safe to
change. Nothing here imports torch or ComfyUI: the doctor must work where they do not.
"""
