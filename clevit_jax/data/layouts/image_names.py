"""Names of the images of a data set, for readers that ask whether a column holds some of them."""

import pathlib
import posixpath
import re

from clevit_jax.data.layouts.listing import files_below, is_image


class ImageNames:
    """The names of the images below a folder, walked as far as they are asked for."""

    def __init__(self, root: pathlib.Path):
        files = files_below(str(root), hidden=False)
        self._rest = (file.rpartition("/")[2] for file in files if is_image(file))
        self._seen = set[str]()

    def any_called(self, names: set[str]) -> bool:
        """Whether an image has one of some names, with or without its folder and ending."""
        wanted = {re.split(r"[\\/]", name)[-1] for name in names} - {""}
        if not self._seen.isdisjoint(wanted):
            return True
        for name in self._rest:
            forms = {name, posixpath.splitext(name)[0]}
            self._seen |= forms
            if not forms.isdisjoint(wanted):
                return True
        return False

    def is_any(self) -> bool:
        """Whether there is an image at all."""
        return bool(self._seen) or next(self._rest, None) is not None
