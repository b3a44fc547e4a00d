"""Images whose folders, or names, tell their class."""
