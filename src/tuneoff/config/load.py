"""Reads a bake-off file: YAML to `BakeOff`. A problem becomes one sentence with file and line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tuneoff.config.base import Config
from tuneoff.config.contenders import (
    CONTENDER_IDS,
    HostedConfig,
    LocalConfig,
    PromptedConfig,
    RecordedConfig,
)
from tuneoff.config.schema import BakeOff, JudgeConfig
from tuneoff.errors import ConfigError, explain_unknown


def load(file: Path | str) -> BakeOff:
    """Read and check a bake-off file; return it. No network is used, and nothing is written.

    Raises:
        ConfigError: one sentence with file, line and what is allowed.
    """
    file = Path(file)
    return parse(_read_text(file, "a bake-off file, or write one with `tuneoff init DATA`"), file)


def load_judge(file: Path | str) -> JudgeConfig:
    """Return the judge that a file describes: the keys of a judge among `task.metrics`.

    Raises:
        ConfigError: one sentence with file, line and what is allowed.
    """
    file = Path(file)
    text = _read_text(file, "a judge's file (YAML: model, rubric)")
    root, value = _read_yaml(text, file, "model, rubric")
    try:
        return JudgeConfig.model_validate({"id": "judge", **value})
    except ValidationError as error:
        raise ConfigError(_explain_error(error, value, root, file, JudgeConfig)) from None


def parse(text: str, file: Path) -> BakeOff:
    """Check the text of a bake-off file; return the bake-off.

    Args:
        file: used in messages, and to resolve relative paths.
    """
    root, value = _read_yaml(text, file, "name, task, contenders")
    # Only a run's own copy of the file has `folder`: the original's folder, relative to the copy.
    folder = value.get("folder", ".")
    if not isinstance(folder, str):
        line = _find_line(root, ("folder",))
        raise ConfigError(f"{file}:{line}: folder is {folder!r}: input should be a path.")
    _check_contender_ids(value, root, file)
    try:
        return BakeOff.model_validate({**value, "folder": (file.parent / folder).resolve()})
    except ValidationError as error:
        raise ConfigError(_explain_error(error, value, root, file)) from None


def _read_text(file: Path, what: str) -> str:
    """Return a file's text.

    Args:
        what: which file to give instead, for the message if it is not there.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file; give the path of {what}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8 text ({error}).") from None


def _read_yaml(text: str, file: Path, keys: str) -> tuple[Any, Mapping[str, Any]]:
    """Return the YAML tree of a file, and its value.

    Args:
        keys: some of the keys at the top, for messages.
    """
    try:
        root = yaml.compose(text)
        value = yaml.safe_load(text)
    except ValueError as error:
        raise ConfigError(f"{file}: a value cannot be read ({error}); correct it.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{where}: this is not valid YAML ({problem}).") from None
    if value is None:
        *first, last = keys.split(", ")
        raise ConfigError(f"{file}: the file is empty; it needs {', '.join(first)} and {last}.")
    if not isinstance(value, Mapping):
        raise ConfigError(f"{file}:1: expected keys such as {keys} at the top.")
    _refuse_repeated_keys(root, file)
    return root, value


def _refuse_repeated_keys(node: Any, file: Path) -> None:
    """Raise ConfigError if a mapping has a key twice: YAML silently keeps the last one."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, inner in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"{file}:{line}: the key {key.value!r} is there twice; keep one.")
            seen.add(key.value)
            _refuse_repeated_keys(inner, file)
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            _refuse_repeated_keys(inner, file)


def _check_contender_ids(value: Mapping[str, Any], root: Any, file: Path) -> None:
    """Raise ConfigError for an unknown contender id, in one sentence: pydantic's own message is
    long."""
    contenders = value.get("contenders")
    for index, contender in enumerate(contenders if isinstance(contenders, list) else ()):
        if not isinstance(contender, Mapping):
            continue
        line = _find_line(root, ("contenders", index, "id"))
        got = contender.get("id")
        if got is None:
            raise ConfigError(
                f"{file}:{line}: contender {contender.get('name', index + 1)} has no id "
                f"(allowed: {', '.join(CONTENDER_IDS)})."
            )
        if got not in CONTENDER_IDS:
            raise ConfigError(
                f"{file}:{line}: {explain_unknown('contender id', str(got), CONTENDER_IDS)}."
            )


def _explain_error(
    error: ValidationError, value: Any, root: Any, file: Path, model: type[Config] = BakeOff
) -> str:
    """Return one sentence for the first error: file, line, value and what is allowed."""
    errors = error.errors()
    # An unknown key is often a required key with a typing error, so it comes before the missing
    # one.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    place = _locate_in_file(first["loc"], value)
    where = f"{file}:{_find_line(root, place)}"
    dotted = ".".join(str(part) for part in place) or "the file"
    kind, got = first["type"], first.get("input")
    if kind == "extra_forbidden":
        known = explain_unknown("key", str(place[-1]), _list_keys_at(place, value, model))
        return f"{where}: {known} in {_get_parent(place)}."
    if kind == "missing":
        return f"{where}: {dotted} is missing; add it."
    if kind == "value_error":
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        return f"{where}: {_get_parent(place) if not place else dotted}: {message}."
    # Each member of a union has its own error; put them together.
    same = (each for each in errors if _locate_in_file(each["loc"], value) == place)
    message = " or ".join(dict.fromkeys(_get_message(each) for each in same))
    return f"{where}: {dotted} is {got!r:.200}: {message}."


def _get_message(error: Any) -> str:
    """Return pydantic's message about a value, without the names of our classes."""
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "input should be keys with values"
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    message = message.replace("a valid tuple", "a list")
    return message[0].lower() + message[1:]


def _locate_in_file(location: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """Return an error's location in the file, without the tags and classes of unions.

    The last part may be a missing key.
    """
    place: list[Any] = []
    for index, part in enumerate(location):
        if location[0] == "contenders" and index == 2:
            continue
        inside = isinstance(value, Mapping) and part in value
        if inside or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
            place.append(part)
        elif isinstance(value, Mapping) and index == len(location) - 1:
            place.append(part)
    return tuple(place)


def _get_parent(place: tuple[Any, ...]) -> str:
    """Return the dotted path of the section that a location is in."""
    return ".".join(str(part) for part in place[:-1]) or "the file"


def _list_keys_at(place: tuple[Any, ...], value: Any, model: Any) -> list[str]:
    """Return the keys that are allowed at a location."""
    kinds: dict[str, type[Config]] = {
        "local": LocalConfig,
        "hosted": HostedConfig,
        "prompted": PromptedConfig,
        "recorded": RecordedConfig,
    }
    for depth, part in enumerate(place[:-1]):
        value = value[part]
        if depth == 1 and place[0] == "contenders":
            model = kinds[value["id"]]
        elif isinstance(part, str):
            field = model.model_fields.get(part)
            model = (_find_model(field.annotation) if field else None) or model
    return [key for key in model.model_fields if key != "folder"]


def _find_model(annotation: Any) -> type[Config] | None:
    """Return the settings class within an annotation, also inside a tuple or union; None without
    one."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    inner = (_find_model(each) for each in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)


def _find_line(node: Any, place: tuple[Any, ...]) -> int:
    """Return the line of a location in a YAML tree: that of its deepest part that exists."""
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == str(part)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                return line
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
