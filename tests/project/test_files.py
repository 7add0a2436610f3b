"""Whoever writes a file uses ``results/store/files``, which writes it whole; whoever reads text says it is UTF-8."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hpjax"
# These write in their own way: ``files`` is the way itself, ``picture_file`` draws into memory, ``picture`` is a figure
# that its users save, and the states of a wave count only once their list, ``tree.json``, is there. The last two add to
# logs, whose ends they check when they go on.
WRITERS = {"files", "picture_file", "picture", "final_states", "array_files", "jsonl", "tensorboard"}


def offences(tree, writes):
    """What the calls of a module do to files that they must not, each with its line."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        named = isinstance(call.func, ast.Name)
        name = call.func.id if named else getattr(call.func, "attr", "")
        modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        utf8 = "utf-8" in modes or any(
            key.arg == "encoding" and getattr(key.value, "value", "") == "utf-8" for key in call.keywords
        )
        if named and name == "open" and not utf8:
            yield call.lineno, "open() without encoding"
        if not named and name == "read_text" and not utf8:
            yield call.lineno, "read_text() without encoding"
        ours = ast.unparse(call.func) == "result.to_csv"
        if not named and name in {"write_text", "write_bytes", "savefig", "to_csv", "tofile"} and not (ours or writes):
            yield call.lineno, f"{name}() writes a file of its own"
        if name in {"save", "savez", "savez_compressed"} and ast.unparse(call.func).startswith("np.") and not writes:
            yield call.lineno, f"{name}() writes a file of its own"
        if name == "open" and any(mode in {"w", "a", "x", "wb", "ab", "xb", "r+"} for mode in modes) and not writes:
            yield call.lineno, "open() for writing"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_written_whole_and_read_as_utf_8(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert list(offences(tree, path.stem in WRITERS)) == []


@pytest.mark.parametrize(
    "code",
    [
        "open(path)",
        "open(path, 'w')",
        "Path(path).read_text()",
        "path.write_text(text, encoding='utf-8')",
        "figure.savefig(path)",
        "np.save(path, array)",
        "path.open('wb')",
        "frame.to_csv(path)",
    ],
)
def test_it_is_seen(code):
    assert list(offences(ast.parse(code), writes=False))
