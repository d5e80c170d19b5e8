"""Keep secrets out of what a run writes down: configs, commands, tracked files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

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
    """``text`` with each secret hidden: in ``secret_name=value`` and before the ``@`` of a URL.

    A text that is one override as a whole (``model.api_key=two words``) loses all of its value.
    """
    whole = re.fullmatch(r"(\+*[\w.-]+)=.*", text, re.DOTALL)
    if whole and is_secret(whole[1]):
        return f"{whole[1]}={HIDDEN}"
    text = re.sub(r"([\"'])(\+*[\w.-]+)=.*?\1", _hide_quoted, text)
    text = re.sub(r"(?<=://)[^/\s@]+(?=@)", HIDDEN, text)
    return re.sub(r"([\w.-]+)(\s?[=:]\s?)(\"[^\"]*\"|'[^']*'|\S*[^\s'\"}\]),])", _hide_value, text)


def _hide_quoted(match: re.Match[str]) -> str:
    quote, name = match.groups()
    return f"{quote}{name}={HIDDEN}{quote}" if is_secret(name) else match[0]


def _hide_value(match: re.Match[str]) -> str:
    name, sign, value = match.groups()
    return f"{name}{sign}{HIDDEN}" if is_secret(name) else f"{name}{sign}{value}"
