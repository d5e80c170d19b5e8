"""Which model: two folders share keys if and only if they hold the same checkpoint."""

import hashlib
import os
import re
import subprocess
import sys

import pytest

from seva_exp.core.errors import InputError
from seva_exp.core.paths import MARKER
from seva_exp.core.spec import canonical
from seva_exp.models.spec import TINY_CHECKPOINT, HubModel, TinyModel


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


FILES = {"config.json": "{}", "pytorch_model.bin": "weights", "vision/model.safetensors": "more"}


def checkpoint(folder, **changed):
    for name, text in (FILES | changed).items():
        write(folder, name, text)
    return folder


def identity(folder):
    return HubModel(path=str(folder)).identity(sha256)


def test_identity_is_content(tmp_path):
    same = identity(checkpoint(tmp_path / "a"))
    assert identity(checkpoint(tmp_path / "b")) == same
    assert sorted(same["path"]) == sorted(FILES) and "revision" not in same
    assert str(tmp_path) not in canonical(same)


PARTS = [
    *FILES,
    *("modeling.py", "merges.txt", "tokenizer.model", "weights.pt", "noext", "a/b/c.gguf"),
]


@pytest.mark.parametrize("name", PARTS)
def test_every_part_of_a_checkpoint_counts(tmp_path, name):
    one = identity(checkpoint(tmp_path / "one", **{name: "one"}))
    two = identity(checkpoint(tmp_path / "two", **{name: "two"}))
    assert one != two


def test_what_only_people_read_does_not_count(tmp_path):
    folder = checkpoint(tmp_path / "a")
    same = identity(folder)
    for name in (
        *("README.md", "sub/NOTES.MD", "logo.png", "figures/plot.JPG", ".gitattributes"),
        *(".git/config", ".cache/huggingface/x.lock", "__pycache__/modeling.cpython-311.pyc"),
        *(f"runs/{MARKER}", "runs/adapter/adapter_model.safetensors"),
    ):
        write(folder, name, "x")
    (folder / "gone.bin").symlink_to("nowhere")
    assert identity(folder) == same


def test_links_are_followed_but_not_in_circles(tmp_path):
    """A snapshot in the hub's cache is a folder of links into another."""
    folder = checkpoint(tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("config.json", "pytorch_model.bin", "vision"):
        (snapshot / name).symlink_to(folder / name)
    (folder / "vision" / "up").symlink_to(snapshot)
    assert identity(snapshot) == identity(checkpoint(tmp_path / "plain"))


def test_name_that_is_no_text(tmp_path):
    folder = checkpoint(tmp_path / "a")
    try:
        os.rename(folder / "pytorch_model.bin", os.fsencode(folder) + b"/\xff.bin")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    canonical(identity(folder)).encode()


def test_file_that_cannot_be_read_is_named(tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(InputError, match=r"model\.path: '.*config\.json' cannot be read: Perm"):
        HubModel(path=str(checkpoint(tmp_path))).identity(refuse)


def test_hub_id_is_its_own_identity():
    values = HubModel(path="org/name", revision="abc").identity(sha256)
    assert (values["path"], values["revision"]) == ("org/name", "abc")


def test_a_bound_on_pixels_is_part_of_the_identity_when_set():
    free = HubModel(path="org/name").identity(sha256)
    assert "max_pixels" not in free
    bound = HubModel(path="org/name", max_pixels=4096).identity(sha256)
    assert bound == {**free, "max_pixels": 4096}


def test_identity_of_the_embedded_model():
    TinyModel().check()
    files = {file.name: sha256(file) for file in TINY_CHECKPOINT.iterdir()}
    assert TinyModel().identity(sha256) == {"kind": "tiny", "path": files}
    assert "model.safetensors" in files


def test_misspelt_folder_suggests_a_folder(tmp_path):
    checkpoint(tmp_path / "my_model")
    (tmp_path / "my_modell.zip").touch()
    with pytest.raises(InputError, match=rf"Did you mean '{re.escape(str(tmp_path))}/my_model'"):
        HubModel(path=str(tmp_path / "my_modell.zi")).check()


def test_import_is_light():
    code = "import sys, seva_exp.models.spec\nprint(*{'torch', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
