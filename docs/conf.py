"""Configuration of the documentation: ``sphinx-build -W --keep-going -b html docs docs/_build``."""

import inspect
import re
from typing import Any

from sphinx.application import Sphinx

from charrnn.config.settings import get_setting
from charrnn.version import __version__

project = "charrnn"
author = copyright = "The charrnn authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True  # a reference to a name of charrnn that the pages lack is a warning
nitpick_ignore_regex = [("py:.*", r"(?!charrnn\.).*")]  # other projects' names would need the network

myst_heading_anchors = 3

default_role = "code"  # single backquotes in a docstring
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"charrnn {release}"
html_copy_source = False

CODE = re.compile(r"--[a-z][a-z-]*|(?<!\w)'[^']+'")  # options and quoted values in help texts


def add_fields(app: Sphinx, what: str, name: str, obj: Any, options: object, lines: list[str]) -> None:
    """Add the fields of a dataclass or a named tuple to its docstring, and drop docstrings of modules.

    A field is described by the help text of its option, or else by the comment on its line or above it. The page
    introduces modules.
    """
    if what == "module":
        lines.clear()
    fields = getattr(obj, "__dataclass_fields__", None) or dict.fromkeys(getattr(obj, "_fields", ()))
    if what not in ("class", "exception") or not fields:
        return
    source = inspect.getsource(obj)
    for field_name, field in fields.items():
        setting = None if field is None else get_setting(field)
        patterns = (rf"^ +{field_name}: .*?  # (.*)", rf"^ +# (.*)\n +{field_name}: ")
        comments = (re.search(pattern, source, flags=re.MULTILINE) for pattern in patterns)
        comment = next((match[1] for match in comments if match), "")
        described = CODE.sub(r"``\g<0>``", setting.option.help) if setting and setting.option else comment
        lines.append(f":ivar {field_name}: {described}")
    lines.append("")


def hide_factories(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Make a signature valid Python where a default comes from a factory."""
    return signature and signature.replace("<factory>", "..."), returned


def setup(app: Sphinx) -> None:
    """Connect the handlers."""
    app.connect("autodoc-process-docstring", add_fields)
    app.connect("autodoc-process-signature", hide_factories)
