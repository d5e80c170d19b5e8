"""Keep secrets out of what a run writes down: configs, commands, tracked files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from seva_exp.core.paths import config_dir

Value = TypeVar("Value")

HIDDEN = "***"
"""What stands for a secret inside a text."""

_ALWAYS = {
    "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials",
    "apikey", "bearer", "authorization", "netrc",
}  # fmt: skip
_KEY_OF = {"api", "access", "private", "secret", "signing", "ssh"}
_TOKEN_OF_A_VOCABULARY = {
    "additional", "answer", "begin", "bos", "class", "cls", "decoder", "end", "eos", "eot", "first",
    "forced", "image", "last", "mask", "new", "pad", "per", "placeholder", "prompt", "sep",
    "special", "start", "stop", "unk", "video", "vision",
}  # fmt: skip
_KEY_FORMATS = re.compile(
    r"\b(?:sk|pk|rk)-[\w-]{16,}|\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    r"|\bgithub_pat_\w{30,}|\bglpat-[\w-]{16,}|\bAKIA[A-Z0-9]{12,}|\bxox[abprs]-[\w-]{10,}"
    r"|\bAIza[\w-]{30,}|\bnvapi-[\w-]{20,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}"
)
"""Keys as services write them: OpenAI and others, Hugging Face, GitHub, GitLab, AWS, Slack, Google,
NVIDIA, and JSON web tokens."""
_SECRET_VARIABLE = re.compile(
    r"((KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)|(^|_)(PAT|PASS)|_PWD"
    r"|^(SSH|PG)PASS)_?\d*$",
    re.I,
)
"""Names of variables that hold a secret. ``PWD`` alone is the shell's folder."""
_PLAIN_KEY = re.compile(r"[0-9a-f]{40}")
"""A key that its form does not tell from a commit: W&B's, GitHub's first."""
_COMMIT = re.compile(
    r"(^|[_.])(COMMIT|SHA\d*|HASH|REV|REVISION|REF|HEAD|DIGEST|CHECKSUM|VERSION)($|[_.])", re.I
)
"""Names of variables and fields where that is none."""
_FROM_VARIABLE = re.compile(r"\$\{\s*(?:oc\.)?env\s*:\s*['\"]?([^\s,}'\"$]+)")
_SHORTEST = 8
"""Characters of a variable's value that is looked for where no field names the variable."""
_POINTER = {"env", "file", "folder", "name", "path", "variable"}
"""A key that ends so names where the secret is; it isn't the secret."""


def is_secret(name: str) -> bool:
    """Whether a key of this name holds a secret: ``api_key``, ``hf_token``, ``dbPassword`` ...

    Names of counts and vocabulary entries (``max_new_tokens``, ``pad_token``) and of places
    (``api_key_env``) are not secret.
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    words = [word for word in re.split(r"[^a-z0-9]+", snake) if word]
    if not words or words[-1] in _POINTER:
        return False
    if _ALWAYS & set(words):
        return True
    before = dict(zip(words[1:], words, strict=False))
    if before.get("key") in _KEY_OF or before.get("keys") in _KEY_OF:
        return True
    return words[-1] == "token" and before.get("token", "") not in _TOKEN_OF_A_VOCABULARY


def looks_secret(text: str) -> bool:
    """Whether a key stands in the text, in a form that a service gives keys."""
    return _KEY_FORMATS.search(text) is not None


def variables_in(unresolved: Any) -> Iterator[tuple[str, str]]:
    """(field, environment variable) for each ``${oc.env:NAME}`` of a config, at any depth and with
    a default, too."""
    for field, text in texts(unresolved):
        for name in _FROM_VARIABLE.findall(text):
            yield field, name


def secret_in(
    values: Mapping[str, Any],
    environment: Mapping[str, str],
    variables: Iterable[tuple[str, str]] = (),
) -> str:
    """Why a config would write a secret down: a key in a field, or the value of an environment
    variable that holds one (``name=${oc.env:MY_KEY}``), whatever its length where the ``variables``
    of the fields (``variables_in``) name it. Names field and variable and no value; empty where
    there is none."""
    hidden = secret_values(environment)
    named = [(f, n) for f, n in variables if _gives_secret(n, environment.get(n, ""), f)]
    for field, text in texts(values):
        found = (name for value, name in hidden.items() if value in text and not _is_ours(value))
        name = next((n for f, n in named if f == field), "") or next(found, "")
        if not name and field.endswith("_env") and not _names_variable(text, environment):
            return (
                f"{field}: no environment variable of the given name is set. It takes a variable's "
                "name; the key itself goes into that variable."
            )
        if not name and not looks_secret(text):
            continue
        what = f"holds the value of the environment variable {name}" if name else "holds a key"
        return (
            f"{field}: {what}, and would be written into the run's files. A key stays in an "
            "environment variable; a config names the variable (machine.server.api_key_env, "
            "machine.judge.api_key_env)."
        )
    return ""


def secret_values(environment: Mapping[str, str]) -> dict[str, str]:
    """Value -> name of the variables that hold a secret, passwords in addresses among them."""
    found = {}
    for name, value in environment.items():
        if len(value) >= _SHORTEST and _holds_secret(name, value):
            found[value] = name
        for password in re.findall(r"://[^/\s:@]*:([^/\s@]{4,})@", value):
            found[password] = name
    return found


def without_values(text: str) -> str:
    """``text`` without the values of this process's variables that hold a secret: a server may
    repeat the key that it was sent."""
    for value in secret_values(os.environ):
        if value not in text or _is_ours(value):
            continue
        text = text.replace(value, HIDDEN)
    return text


@cache
def _is_ours(value: str) -> bool:
    """Whether it stands in our own source or configs, so that nobody can tell where a text has it
    from (``API_KEY=diffusion_noise``) and to hide it would hide our own words."""
    return value in _our_words()


@cache
def _our_words() -> str:
    files = [*Path(__file__).parents[1].rglob("*.py"), *config_dir().rglob("*.yaml")]
    return "\0".join(text for f in files for text in (f.stem, f.read_text(encoding="utf-8")))


def _gives_secret(name: str, value: str, field: str) -> bool:
    """Whether a field that is read from the variable would hold a secret."""
    if _PLAIN_KEY.fullmatch(value) and not _COMMIT.search(name) and not _COMMIT.search(field):
        return True
    return bool(value) and _holds_secret(name, value)


def _holds_secret(name: str, value: str) -> bool:
    if looks_secret(value) or is_secret(name):
        return True
    place = value.startswith(("/", "~", ".")) or os.path.exists(value)
    return bool(_SECRET_VARIABLE.search(name)) and not place


def _names_variable(text: str, environment: Mapping[str, str]) -> bool:
    """Whether it is one that is set, or a name as they are usually written; else a key may have
    been written where its variable's name belongs."""
    return text in environment or re.fullmatch(r"[A-Z_][A-Z0-9_]*", text) is not None


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a config with its dotted field, keys of mappings among them."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield path or "the config", str(key)
            yield from texts(one, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            yield from texts(one, f"{path}.{place}")
    elif isinstance(value, str | int):
        yield path, str(value)


def without_secrets(config: Value) -> Value:
    """A copy of ``config`` without its secret keys, at any depth, and with ``hide`` on its texts.

    Mappings become dicts; lists and tuples keep their type; other values are kept as they are.
    """
    result: Any = config
    if isinstance(config, Mapping):
        result = {k: without_secrets(v) for k, v in config.items() if not is_secret(str(k))}
    elif isinstance(config, list | tuple):
        result = type(config)([without_secrets(item) for item in config])
    elif isinstance(config, str):
        result = hide(config)
    return result


def hide(text: str) -> str:
    """``text`` with each secret hidden: in ``secret_name=value``, before the ``@`` of a URL, and
    whatever looks like a service's key.

    A text that is one override as a whole (``model.api_key=two words``) loses all of its value.
    """
    text = _KEY_FORMATS.sub(HIDDEN, without_values(text))
    whole = re.fullmatch(r"(\+*[\w.-]+)=.*", text, re.DOTALL)
    if whole and is_secret(whole[1]):
        return f"{whole[1]}={HIDDEN}"
    text = re.sub(r"([\"'])(\+*[\w.-]+)=.*?\1", _hide_quoted, text)
    text = re.sub(r"(?<=://)[^/\s@]+(?=@)", HIDDEN, text)
    return re.sub(
        r"(?<![\w.-])([\w.-]++)(\s?[=:]\s?)(\"[^\"]*\"|'[^']*'|\S*[^\s'\"}\]),])", _hide_value, text
    )


def _hide_quoted(match: re.Match[str]) -> str:
    quote, name = match.groups()
    return f"{quote}{name}={HIDDEN}{quote}" if is_secret(name) else match[0]


def _hide_value(match: re.Match[str]) -> str:
    name, sign, value = match.groups()
    return f"{name}{sign}{HIDDEN}" if is_secret(name) else f"{name}{sign}{value}"
