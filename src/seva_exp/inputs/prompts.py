"""Prompt sets: files with careful, plain and bad ways to ask for a description (STIC, appendix B);
and how a description and a question make one prompt.

A set is a YAML file with the lists ``careful``, ``plain`` and ``bad``, each of at least one text.
Some are packaged and known by name; a user names a file of their own by its path.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Any

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.spec import Spec
from seva_exp.inputs.user_paths import yaml_mapping

PACKAGED = Path(__file__).parents[1] / "augment" / "prompts"
SUFFIXES = (".yaml", ".yml")


class PromptSet(Spec):
    """The texts of one set. Equal texts are an equal set, whatever the file is called."""

    careful: tuple[str, ...]
    """Ask for a faithful description; the answers are preferred."""
    plain: tuple[str, ...]
    """Ask for a description; the preference is trained on these."""
    bad: tuple[str, ...]
    """Ask for what is not there; the answers are rejected."""


LISTS = tuple(PromptSet.model_fields)


def packaged_sets() -> list[str]:
    """Names of the sets that come with the package."""
    return sorted(file.stem for file in PACKAGED.glob("*.yaml"))


def load_prompts(prompts: str, field: str = "prompts") -> PromptSet:
    """The set of a packaged name or of a file. ``field`` (such as ``aug.bad_prompt.prompts``) is
    named in the InputError that says what is wrong."""
    file = _find(prompts, field)
    where = f"{field}: {str(file)!r}"
    content = yaml_mapping(file, where, f"the lists {', '.join(LISTS)} are needed.")
    for name in content:
        if name not in LISTS:
            raise InputError(f"{where}: no list has the name {name!r}.{suggest(str(name), LISTS)}")
    return PromptSet(**{name: _texts(content, name, where) for name in LISTS})


def _find(prompts: str, field: str) -> Path:
    if prompts in packaged_sets():
        return PACKAGED / f"{prompts}.yaml"
    file = Path(prompts).expanduser()
    if file.is_file():
        return file
    if file.suffix in SUFFIXES or len(file.parts) > 1:
        raise InputError(f"{field}: there is no file {prompts!r}.")
    raise InputError(
        f"{field}={prompts}: no such prompt set.{suggest(prompts, packaged_sets())} "
        "A file of your own is named by its path."
    )


def _texts(content: dict[Any, Any], name: str, where: str) -> tuple[str, ...]:
    """One list: at least one text, none of them blank."""
    texts = content.get(name)
    if not texts:
        problem = "is empty" if name in content else "is missing"
        raise InputError(f"{where}: the list '{name}' {problem}; it needs at least one prompt.")
    if not isinstance(texts, list):
        raise InputError(f"{where}: '{name}' is {reprlib.repr(texts)}, a list is needed.")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{where}: entry {number} of '{name}' is {reprlib.repr(text)}, a text is needed "
                "(put it in quotes)."
            )
    return tuple(text.strip() for text in texts)


PLACEHOLDER = re.compile(r"\{(description|question)\}")


def described_template(text: str) -> str:
    """The layout of a question behind a description. ``\\n`` written out stands for a line break,
    since a command line keeps it as two characters. Raises ValueError where a placeholder is
    missing."""
    if set(PLACEHOLDER.findall(text)) != {"description", "question"}:
        raise ValueError("must hold both {description} and {question}")
    return text.replace("\\n", "\n")


def infuse(template: str, description: str, question: str) -> str:
    """The prompt that is sent: STIC puts the description before the question. Braces in the texts
    and elsewhere in the template stay."""
    values = {"description": description, "question": question}
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)
