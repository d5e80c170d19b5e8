"""Secrets: known by their names, hidden in texts, dropped at any depth."""

from __future__ import annotations

import pytest

from seva_exp.core.redact import (
    hide,
    is_secret,
    looks_secret,
    secret_in,
    variables_in,
    without_secrets,
)


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


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop",
        "hf_abcdefghijklmnopqrstuv",
        "ghp_" + "a1" * 18,
        "AKIAABCDEFGHIJKLMNOP",
        "AIza" + "b2" * 18,
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.x",
    ],
)
def test_a_key_of_a_service_is_known_by_its_form(key: str) -> None:
    assert looks_secret(key) and key not in hide(f"said {key} to the server")
    assert secret_in({"a": [{"b": f"x/{key}"}]}, {}).startswith("a.0.b: holds a key")


ENVIRONMENT = {
    "MY_KEY": "correcthorse",
    "MONKEY": "/data/monkeys",
    "TOKENIZERS_PARALLELISM": "falsefalse",
    "COMMIT": "0123456789abcdef0123456789abcdef01234567",
    "SERVER_KEY": "x" * 9,
    "AUTH": "short",
}


def test_the_value_of_a_variable_that_holds_a_secret_is_found_wherever_it_stands() -> None:
    for config in (
        {"name": "correcthorse"},
        {"a": {"b": ["x", "a-correcthorse-b"]}},
        {"benchmark": {"correcthorse": 1}},
    ):
        told = secret_in(config, ENVIRONMENT)
        assert "MY_KEY" in told and "correcthorse" not in told


@pytest.mark.parametrize("value", [*list(ENVIRONMENT.values())[1:4], "short", True, 3, None])
def test_places_commits_and_short_words_are_no_secrets(value: object) -> None:
    assert secret_in({"data": {"path": value}}, ENVIRONMENT) == ""


HEX = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("DB_PASSWORD", "hunter2"), ("PASSWORD", "hunter2"), ("MYTOKEN", "abc123")],
        *[("GH_PAT", HEX), ("LOGIN", HEX), ("MYSQL_PWD", "x"), ("API_KEY_2", "y"), ("PASS", "z")],
    ],
)
@pytest.mark.parametrize(
    "form", ["${oc.env:%s}", "run_${oc.env:%s,none}", "a${oc.decode:${oc.env:'%s'}}"]
)
def test_a_field_that_names_a_variable_of_a_secret_is_found_whatever_its_length(name, value, form):
    variables = list(variables_in({"a": [{"b": form % name}]}))
    assert variables == [("a.0.b", name)]
    told = secret_in({"a": [{"b": f"run_{value}"}]}, {name: value}, variables)
    assert told.startswith(f"a.0.b: holds the value of the environment variable {name}")
    assert not secret_in({"a": [{"b": "run_none"}]}, {}, variables), "it is not set"


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        *[("name", "USER", "me"), ("data", "PWD", "/work"), ("data", "PYTHONPATH", "src")],
        *[("name", "GIT_COMMIT", HEX), ("revision", "LLAVA", HEX), ("data", "COMPASS", "north")],
    ],
)
def test_a_field_that_names_another_variable_is_taken(field: str, name: str, value: str) -> None:
    assert not secret_in({field: value}, {name: value}, [(field, name)])


def test_a_secret_that_is_a_word_of_ours_hides_and_refuses_nothing(monkeypatch) -> None:
    for word in ("diffusion_noise", "unbiased", "seva_exp"):
        monkeypatch.setenv("API_KEY", word)
        assert not secret_in({"aug": {word: {"kind": word}}}, {"API_KEY": word})
        assert hide(f"{word}: told") == f"{word}: told"
    assert secret_in({"name": word}, {"API_KEY": word}, [("name", "API_KEY")])


def test_where_a_variable_s_name_belongs_no_key_is_taken() -> None:
    def told(value: object) -> str:
        return secret_in({"machine": {"server": {"api_key_env": value}}}, ENVIRONMENT)

    assert not told("OPENAI_API_KEY") and not told("MY_KEY") and not told(None)
    assert "api_key_env: no environment variable" in told("a1b2c3")
    assert "a1b2c3" not in told("a1b2c3")


def test_hiding_takes_no_longer_for_long_words() -> None:
    assert hide("QUJD" * 250_000) == "QUJD" * 250_000
    assert hide("a.b-c" * 100_000 + "_token=x").endswith("***")
