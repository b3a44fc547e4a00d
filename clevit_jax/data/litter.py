"""What systems and programs leave beside a user's files: no class, no image, no reason to stop."""

_NAMES = frozenset(
    [
        *("__macosx", ".ds_store", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "folder.ini"),  # Windows
        *("$recycle.bin", "recycler", "recycled", "system volume information"),
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),  # network storage
        *("lost+found", "__pycache__", "node_modules", "site-packages", "venv"),  # programs
    ]
)


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system or a program left there."""
    return name.startswith(".") or name.casefold() in _NAMES
