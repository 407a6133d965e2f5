"""Shows the doctests of docstrings as code."""

import re

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n(?!\n).+)*", re.M)


class DocstringExamples(griffe.Extension):
    """Fences the doctests of every docstring, which stand there as they are."""

    def on_object(self, *, obj, **_):
        """Called by griffe for every object that is loaded."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
