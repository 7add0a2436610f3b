"""The documentation, built by Sphinx: `make docs`."""

import re
from typing import Any

import hpjax

project = "hpjax"
author = "The hpjax authors"
copyright = author
release = version = hpjax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"hpjax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_use_ivar = True
napoleon_use_rtype = False

# The public modules of hpjax, in the order in which a name that stands in several is looked for.
MODULES = (
    *("data", "nn", "optim", "samplers", "schedulers", "studies", "losses", "mup", "metrics", "plot", "keys"),
    *("distributed", "testing", "sklearn", "cluster", "trackers", "analysis"),
)


def public_path(name: str) -> str | None:
    """Returns where users find what a type hint calls `name`: `hpjax.Sweep` of `hpjax.sweep.sweep.sweep.Sweep`."""
    short = name.rsplit(".", 1)[-1]
    if hasattr(hpjax, short):
        return f"hpjax.{short}"
    return next((f"hpjax.{module}.{short}" for module in MODULES if hasattr(getattr(hpjax, module), short)), None)


def resolve_type(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Links the types in signatures and fields to their public names; others, of JAX say, stay text.

    References of the text itself are written as {obj} and {meth}, and must resolve.
    """
    foreign = node.get("reftarget", "").startswith("typing.")
    if node.get("refdomain") != "py" or not (foreign or node.get("reftype") in ("class", "exc")):
        return None
    path = public_path(node["reftarget"])
    domain = env.domains.python_domain
    found = path and domain.resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, text)
    return found or text


def skip_fields(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out the fields of named tuples, which the docstring's Attributes describe."""
    return True if re.match("Alias for field number", getattr(obj, "__doc__", None) or "") else None


def tidy_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keeps Napoleon from taking the first of several names for a type, and a property's sentence for one."""
    if what == "property" and ":" in lines[0]:
        lines.insert(0, "\u200b")  # a first line without a colon, which takes no room
    several = re.compile(r"^( +\w+(?:, \w+)+): ")
    inside = False
    for i, line in enumerate(lines):
        inside = line == "Attributes:" or (inside and line.startswith((" ", "\t")))
        if inside and several.match(line):
            names, text = line.split(": ", 1)
            lines[i] = f"{names.replace(', ', ',')}: {text}"


def tidy_signature(app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: Any) -> Any:
    """Writes defaults that are functions as `...`, without their addresses, and NumPy's arrays as `NDArray`."""
    arrays = r"~?(?:numpy\.)?ndarray\[~?(?:builtins\.)?tuple\[~?(?:typing\.)?Any, \.\.\.\], [^\]]*\]\]"
    return [part and re.sub(arrays, "NDArray", re.sub("<[^<>]*>", "...", part)) for part in (signature, returns)]


def setup(app: Any) -> None:
    """Connects the functions above."""
    app.connect("missing-reference", resolve_type)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("autodoc-process-docstring", tidy_docstring, priority=400)
