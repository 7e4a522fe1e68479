"""Draws the packages of `src/tuneoff/` from their imports, into `docs/architecture.md`.

    python docs/draw_packages.py            # writes the picture between the two markers
    python docs/draw_packages.py --check    # writes nothing; exits 1 if the picture is out of date

The rows are the layers of `tests/test_layers.py`. The arrows are imports, read from the syntax
trees, wherever in a file they stand. So that the picture can be read, two kinds of arrows are left
out: those that follow from others (transitive reduction: with A → B and B → C, A → C is not drawn),
and those to the last row, which nearly every package imports.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

from count_style import read_layers

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- packages: drawn by docs/draw_packages.py -->"
END = "<!-- packages: end -->"
CAPTION = """\
Each box is a package or a root module of `src/tuneoff/`, and each row is a layer. A box may import
only from the rows below its own. An arrow leads from the importer to the imported. Two kinds of
arrows are left out. If A → B and B → C, then A → C is not drawn, even if A imports C (transitive
reduction). Arrows to the last row are not drawn, because nearly every box has one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=ROOT, help="a checkout")
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is out of date")
    arguments = parser.parse_args()
    page = arguments.root / "docs" / "architecture.md"
    before = page.read_text()
    after = replace_picture(before, draw_packages(arguments.root))
    if arguments.check and after != before:
        sys.exit(f"{page} does not show today's imports: run `python docs/draw_packages.py`.")
    if after != before:
        page.write_text(after)


def draw_packages(root: Path) -> str:
    """Return the picture of a checkout as Markdown: a Mermaid graph, a list of rows, a caption."""
    layers = [sorted(names) for names in read_layers(root)]
    edges = reduce_edges(check_layers(read_imports(root / "src" / "tuneoff"), layers))
    drawn = sorted(edge for edge in edges if edge[1] not in layers[-1])
    graph = ["graph TD"]
    for number, names in enumerate(layers, 1):
        graph += [f'  subgraph layer{number} [" "]', f"    {' & '.join(names)}", "  end"]
    # Links that are not seen keep the rows in this order.
    graph += [f"  {' ~~~ '.join(f'layer{number + 1}' for number in range(len(layers)))}"]
    graph += [f"  {importer} --> {imported}" for importer, imported in drawn]
    rows = [f"{number:2}  {' · '.join(names)}" for number, names in enumerate(layers, 1)]
    blocks = (CAPTION, "```mermaid", *graph, "```", "", "The same rows as text:", "", "```text")
    return "\n".join((*blocks, *rows, "```"))


def read_imports(package: Path) -> set[tuple[str, str]]:
    """Return pairs of a package or root module and another one that it imports."""
    tops = {p.stem for p in package.iterdir() if p.suffix == ".py" or any(p.rglob("*.py"))}
    edges = set()
    for file in package.rglob("*.py"):
        own = file.relative_to(package).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            for name in _list_imported(node):
                edges.add((own, name))
    return {(a, b) for a, b in edges if a != b and {a, b} <= tops - {"__init__"}}


def _list_imported(node: ast.AST) -> list[str]:
    """Return the second parts of the names under `tuneoff.` that a statement imports."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.split(".")[1] for name in names if name.startswith("tuneoff.")]


def check_layers(edges: set[tuple[str, str]], layers: list[list[str]]) -> set[tuple[str, str]]:
    """Return the edges if every one leads to a lower layer, and exit with a sentence otherwise."""
    level = {name: number for number, names in enumerate(layers) for name in names}
    for importer, imported in sorted(edges):
        if unknown := {importer, imported} - set(level):
            sys.exit(f"{unknown.pop()} has no layer: give it one in tests/test_layers.py.")
        if level[imported] <= level[importer]:
            sys.exit(f"{importer} imports {imported}, which is not in a layer below its own.")
    return edges


def reduce_edges(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the edges that do not follow from others. The graph must have no circle."""
    below: dict[str, set[str]] = {}
    for importer, imported in edges:
        below.setdefault(importer, set()).add(imported)

    def find_reachable(name: str) -> set[str]:
        return set().union(*({child} | find_reachable(child) for child in below.get(name, ())))

    deeper = {name: set().union(*map(find_reachable, below[name])) for name in below}
    return {(name, child) for name, child in edges if child not in deeper[name]}


def replace_picture(page: str, picture: str) -> str:
    """Return the page with a new picture between its markers."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"docs/architecture.md has no line {BEGIN!r} with {END!r} after it.")
    return pattern.sub(lambda _: f"{BEGIN}\n{picture}\n{END}", page)


if __name__ == "__main__":
    main()
