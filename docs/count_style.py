"""Counts how far the code follows the style guide in CONTRIBUTING.md, and prints JSON.

    python docs/count_style.py [ROOT] [--list]

ROOT is a checkout of the repository (default: this one), so that two can be compared. The script
reads `ROOT/src/` and `ROOT/tests/test_layers.py`, and imports neither. `--list` adds the places
behind the counts. No test enforces a count. What counts:

- A module-level function begins with a verb if the first word of its name is in `VERBS`. A word of
  `NOUNS_TOO` needs an object: `price_tokens` counts, `price` and `price_for` do not. Commands,
  routes, fixtures (see `ENTRY_DECORATORS`) and `main` are counted apart, because users or other
  programs know them by name: in `cli/` those that a module with `app.command()` names.
  Overloads and names such as `__getattr__` are left out. `to_` and `from_` convert, as verbs.
- A `getattr` or `hasattr` call is on a contender, a scorer or their settings in three cases: its
  object ends in a name with a word of `OUR_WORDS` (`parts.scorer`, `executor.kind_of(c)`); it is a
  parameter annotated with a class of `src/` that ends in one of `OUR_CLASSES`; it asks for an
  attribute of `HOOKS`. A model's `config` is none of these, and neither is a plug-in's `module`.
- `isinstance` counts if it asks for a class of `src/` that ends in Settings or Config.
- A function's lines run from `def` to its end, docstring included.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

VERB_WORDS = """
    adapt add adjust advise aggregate align allow announce answer append apply ask assert assign
    attach attend authorize average balance begin bind borrow broadcast build call can cancel
    capture carry carve cast change check choose clamp classify clean clear clip close collect
    combine compare compile complete compute confine confirm connect convert copy correct count
    create cut decide declare decode delete derive describe detach detect disable discard divide
    draw drop dump enable encode ensure escape evaluate exclude execute exit expect explain export
    extract fail fetch fill filter finalize find finish fit flatten flip fold follow forget format
    free from fuse gather generate get give grade guess handle has hide hold identify ignore import
    include increase infer insert inspect install interleave intersect invent is iterate join judge
    keep lay leave list load locate look lower make map match measure merge migrate move needs
    normalize open pack pad parse partition pay pick plan pluralize prepare print probe publish put
    quote raise read receive recognize recommend record recover redact refill refuse reject release
    remove rename render replace require reserve reset resolve restore resume retrieve retry return
    reverse rewrite run save say scan score search select send serialize serve set settle shorten
    show shuffle silence simulate skip snap sort spell split spread start stop store strip style
    submit subtract sum summarize swap sync take tell thin to tokenize train translate transpose
    truncate tune untie unwrap update upload use validate verify visit wait walk warn watch weigh
    widen wrap write yield
"""
NOUN_WORDS = """
    cache document estimate group hash index label limit lock mark mask name note order pair
    pause price query rank report request sample scale schedule shard stage stream test time trace
"""
VERBS, NOUNS_TOO = set(VERB_WORDS.split()), set(NOUN_WORDS.split())
NO_OBJECTS = {"of", "for", "in", "on", "at", "from", "to"}
ENTRY_DECORATORS = {"command", "callback", "get", "post", "put", "patch", "delete", "fixture"}
OPENERS = {"the", "a", "an", "what", "whether", "how", "which", "who", "where"}
MAX_SENTENCE_WORDS, LONG_FILES = 20, (400, 500)
OUR_WORDS = {"contender", "contenders", "settings", "scorer", "scorers", "kind"}
ANY_PARAMETERS = ("settings", "config", "contender", "scorer")
OUR_CLASSES = ("Settings", "Config", "Contender", "Scorer")
HOOKS = {"begin", "interrupted", "serving", "prompt_record", "primary", "groups"}
HOOKS |= {"ERROR_CLASSES", "failing", "doubts"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).parent.parent)
    parser.add_argument("--list", action="store_true", help="add the places behind the counts")
    arguments = parser.parse_args()
    print(json.dumps(count_style(arguments.root, arguments.list), indent=2))


def count_style(root: Path, list_places: bool = False) -> dict[str, Any]:
    """Return all counts of a checkout, and the places behind them under `places` if wanted."""
    files = sorted((root / "src").rglob("*.py"))
    texts = {p.relative_to(root / "src").as_posix(): p.read_text() for p in files}
    counter = StyleCounter({name: ast.parse(text) for name, text in texts.items()})
    counts = {**_count_layout(root, texts), **counter.count()}
    return counts | ({"places": counter.places} if list_places else {})


def read_layers(root: Path) -> list[set[str]]:
    """Return the sets of `LAYERS` in the layer test, top first, or none without that test."""
    file = root / "tests" / "test_layers.py"
    for node in ast.parse(file.read_text()).body if file.is_file() else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            return [set(names) for names in ast.literal_eval(node.value)]
    return []


def _count_layout(root: Path, texts: dict[str, str]) -> dict[str, Any]:
    """Return counts of files, of entries at the root of each package, and of layers."""
    lines = sorted(len(text.splitlines()) for text in texts.values())
    tops = [path for path in (root / "src").iterdir() if (path / "__init__.py").is_file()]
    beside = [path for top in tops for path in top.glob("*.py") if path.name != "__init__.py"]
    packages = [path for top in tops for path in top.iterdir() if any(path.rglob("*.py"))]
    return {
        "files": len(lines),
        **{f"files_over_{most}_lines": sum(n > most for n in lines) for most in LONG_FILES},
        "modules_at_root": len(beside),
        "packages_at_root": len(packages),
        "layers": len(read_layers(root)) or None,
    }


class StyleCounter:
    """The places that each count is made of, over the modules of one checkout (by path)."""

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        self._trees = trees
        self.places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        classes = {n.name for t in trees.values() for n in ast.walk(t) if type(n) is ast.ClassDef}
        self._ours = {name for name in classes if name.endswith(OUR_CLASSES)}
        apps = [t for t in trees.values() if ".command(" in ast.unparse(t)]
        outside = [s for t in apps for s in t.body if not is_function(s)]
        self._commands = {_get_last_name(n) for s in outside for n in ast.walk(s)}

    def count(self) -> dict[str, Any]:
        """Return the counts of functions, docstrings, annotations and calls."""
        functions = [n for t in self._trees.values() for n in ast.walk(t) if is_function(n)]
        for module, tree in self._trees.items():
            self._sort_module_level(module, tree)
            self._check_docstrings(module, tree)
            self._check_calls(module, tree, {})
        lines = sorted((node.end_lineno or 0) - node.lineno + 1 for node in functions) or [0]
        verbs, others = self._size("verb_first"), self._size("no_verb")
        documented = sum(ast.get_docstring(node) is not None for node in functions)
        return {
            "functions": len(functions),
            "median_function_lines": lines[math.ceil(0.5 * len(lines)) - 1],
            "p90_function_lines": lines[math.ceil(0.9 * len(lines)) - 1],
            "module_level_functions": verbs + others,
            "module_level_entries": self._size("entries"),
            "begin_with_verb": verbs,
            "begin_with_verb_share": round(verbs / max(1, verbs + others), 3),
            "function_docstrings": documented,
            "open_with_article": self._size("article"),
            "open_with_article_share": round(self._size("article") / max(1, documented), 3),
            "first_sentence_too_long": self._size("long_sentence"),
            "public_without_docstring": self._size("no_docstring"),
            **{f"{name}_any": self._size(f"{name}: Any") for name in ANY_PARAMETERS},
            "getattr_on_ours": self._size("getattr"),
            "isinstance_on_settings": self._size("isinstance"),
        }

    def _size(self, key: str) -> int:
        return sum(map(len, self.places[key].values()))

    def _sort_module_level(self, module: str, tree: ast.Module) -> None:
        """Sort the functions of a module into entries, verb first, and others."""
        for node in filter(is_function, tree.body):
            decorators = {_get_last_name(decorator) for decorator in node.decorator_list}
            if node.name.startswith("__") or "overload" in decorators:
                continue
            is_command = "/cli/" in module and node.name in self._commands
            is_entry = node.name == "main" or is_command or decorators & ENTRY_DECORATORS
            key = "verb_first" if begins_with_verb(node.name) else "no_verb"
            self.places["entries" if is_entry else key][module].append(node.name)

    def _check_docstrings(self, module: str, tree: ast.AST, is_public: bool = True) -> None:
        """Note docstrings that open with an article, are long, or are missing."""
        for node in ast.iter_child_nodes(tree):
            if not is_function(node):
                inside = is_public and not (isinstance(node, ast.ClassDef) and node.name[0] == "_")
                self._check_docstrings(module, node, inside)
                continue
            self._check_docstrings(module, node, False)
            docstring = ast.get_docstring(node)
            if docstring is None:
                if is_public and node.name[0] != "_":
                    self.places["no_docstring"][module].append(node.name)
                continue
            words = get_first_sentence(docstring).split() or [""]
            if words[0].lower().strip("`*,.:'\"") in OPENERS:
                self.places["article"][module].append(node.name)
            if len(words) > MAX_SENTENCE_WORDS:
                self.places["long_sentence"][module].append(node.name)

    def _check_calls(self, module: str, node: ast.AST, annotations: dict[str, str]) -> None:
        """Note parameters of type Any, and calls that ask what an object of ours is or has.

        Args:
            annotations: annotations of the enclosing functions' parameters, by name.
        """
        if isinstance(node, ast.arg) and node.annotation:
            if ast.unparse(node.annotation) == "Any":
                self.places[f"{node.arg}: Any"][module].append(f"line {node.lineno}")
        elif isinstance(node, FunctionNode | ast.Lambda):
            own = [inner for inner in ast.walk(node.args) if isinstance(inner, ast.arg)]
            new = {arg.arg: ast.unparse(arg.annotation) for arg in own if arg.annotation}
            annotations = annotations | new
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            place = f"line {node.lineno}: {ast.unparse(node)}"
            if node.func.id in ("getattr", "hasattr") and self._is_ours(node.args, annotations):
                self.places["getattr"][module].append(place)
            names = {n for n in self._names_in(node.args[1]) if n.endswith(("Settings", "Config"))}
            if node.func.id == "isinstance" and names:
                self.places["isinstance"][module].append(place)
        for child in ast.iter_child_nodes(node):
            self._check_calls(module, child, annotations)

    def _is_ours(self, arguments: Sequence[ast.expr], annotations: dict[str, str]) -> bool:
        """Return whether `getattr(*arguments)` asks a contender, a scorer or their settings."""
        name, asked = _get_last_name(arguments[0]), ast.unparse(arguments[1]).strip("'")
        annotation = annotations.get(name, "") if isinstance(arguments[0], ast.Name) else ""
        if asked in HOOKS or self._names_in(ast.parse(annotation)):
            return True
        # `getattr(kind, "value", kind)` reads an enum.
        return asked != "value" and bool(OUR_WORDS & set(name.split("_")))

    def _names_in(self, node: ast.AST) -> set[str]:
        """Return the names of our classes that an expression mentions."""
        return {_get_last_name(inner) for inner in ast.walk(node)} & self._ours


def begins_with_verb(name: str) -> bool:
    """Return whether a function's name begins with a verb, by the two word lists."""
    first, *rest = name.strip("_").split("_")
    return first in VERBS or (first in NOUNS_TOO and bool(rest) and rest[0] not in NO_OBJECTS)


def get_first_sentence(docstring: str) -> str:
    """Return the first sentence of a docstring, which ends with its paragraph at the latest."""
    paragraph = " ".join(inspect.cleandoc(docstring).split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph, maxsplit=1)[0]


def is_function(node: ast.AST) -> TypeGuard[FunctionNode]:
    """Return whether a node is the definition of a function, ordinary or async."""
    return isinstance(node, FunctionNode)


def _get_last_name(node: ast.AST) -> str:
    """Return the last name of `a.b`, `a.b(…)` or `b`, or nothing."""
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


if __name__ == "__main__":
    main()
