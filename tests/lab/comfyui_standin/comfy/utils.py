"""Progress of a node, told the same way as in ComfyUI."""

PROGRESS_BAR_HOOK = None


def set_progress_bar_global_hook(function):
    """Whom to tell: (value, total, preview, node_id=...)."""
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


class ProgressBar:
    """How far a node is."""

    def __init__(self, total, node_id=None):
        self.total = total
        self.current = 0
        self.node_id = node_id
        self.hook = PROGRESS_BAR_HOOK

    def update_absolute(self, value, total=None, preview=None):
        """Tell that ``value`` of the total is done."""
        self.total = self.total if total is None else total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value):
        """Tell that ``value`` more is done."""
        self.update_absolute(self.current + value)
