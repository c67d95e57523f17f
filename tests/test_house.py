"""The rooms of the package, and which may import which: every import points to a room further down."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sb3_pave"
# What each room may import besides itself. "" is the package's own ``__init__``: the public names
ALLOWED = {
    "user_warning": set(),
    "method": set(),
    "fast": {"user_warning", "method"},
    "algorithms": {"user_warning", "method", "fast"},
    "": {"algorithms"},
    "baselines": {"", "user_warning", "algorithms", "method", "fast"},
    "evaluation": {"user_warning"},
    "callbacks": {"evaluation"},
    "export": {"evaluation"},
    "benchmark": {"", "algorithms", "baselines", "fast"},
    "zoo": {"", "algorithms", "baselines"},
    "experiments": {"evaluation", "zoo"},
    "commands": {"", "benchmark", "evaluation", "experiments", "export", "zoo"},
    "__main__": {"commands"},
}


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def imports():
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        source = path.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.ImportFrom(module="sb3_pave", names=names):
                    known = [name.name for name in names if (PACKAGE / name.name).exists()]
                    targets = known or [""]
                case ast.ImportFrom(module=str(module)) if module.startswith("sb3_pave."):
                    targets = [room(module)]
                case ast.Import(names=names):
                    targets = [room(name.name) for name in names if name.name.split(".")[0] == "sb3_pave"]
                case _:
                    continue
            yield from ((str(path), "" if source == "__init__" else source, target) for target in targets)


def test_every_import_points_down():
    found = list(imports())
    assert len(found) > 100
    wrong = [
        f"{path} imports {target or 'sb3_pave'}"
        for path, source, target in found
        if target != source and target not in ALLOWED[source]
    ]
    assert not wrong


def test_the_rooms_have_no_circle():
    def above(name: str, path: tuple[str, ...] = ()) -> None:
        assert name not in path, path
        for below in ALLOWED[name]:
            above(below, (*path, name))

    for name in ALLOWED:
        above(name)


def imported_files(file: Path):
    """The package's files that a file imports, in its functions, too."""

    def of(name: str) -> Path | None:
        path = PACKAGE.parent.joinpath(*name.split("."))
        return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.exists()), None)

    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "sb3_pave":
                yield from {of(f"{module}.{name.name}") or of(module) for name in names}
            case ast.Import(names=names):
                yield from {of(name.name) for name in names if name.name.split(".")[0] == "sb3_pave"}


def test_no_files_import_each_other():
    graph = {file: set(imported_files(file)) for file in PACKAGE.rglob("*.py")}
    assert sum(map(len, graph.values())) > 300 and not any(None in imported for imported in graph.values())
    TopologicalSorter(graph).prepare()  # raises a CycleError, which names them


@pytest.mark.parametrize("file", sorted((PACKAGE / "fast").glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_each_fast_module_says_what_it_equals(file):
    first_line = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
    assert "equal" in first_line, first_line
