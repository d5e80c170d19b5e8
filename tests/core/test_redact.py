"""Secrets: known by their names, hidden in texts, dropped at any depth."""

from __future__ import annotations

import pytest

from seva_exp.core.redact import hide, is_secret, without_secrets


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "OPENAI_API_KEY", "token", "hf_token", "password", "db.passwd"]
)
def test_secret_names(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_new_tokens",
        "pad_token",
        "image_token",
        "tokenizer",
        "api_key_env",
        "key",
        "tokens_per_s",
    ],
)
def test_harmless_names(name: str) -> None:
    assert not is_secret(name)


def test_secrets_are_hidden_in_texts_and_dropped_at_any_depth() -> None:
    line = "x model.api_key=abc 'hf_token=a b' beta=1"
    assert hide(line) == "x model.api_key=*** 'hf_token=***' beta=1"
    assert hide("+model.token=a b") == "+model.token=***"
    assert hide("'dpo.beta=0.1' key: 3") == "'dpo.beta=0.1' key: 3"
    assert hide("http://me:pw@host:1/v1") == "http://***@host:1/v1"
    value = {"a": [{"token": "t", "b": ({"password": 1, "c": 2},)}], "n": 1}
    assert without_secrets(value) == {"a": [{"b": ({"c": 2},)}], "n": 1}
    assert value["a"][0]["token"] == "t"
