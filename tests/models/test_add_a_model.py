"""docs/add_a_model.md shows files and messages as they are, and what it says is enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .checkpoints import VICUNA, Family, checkpoint, draw, text, vision
from .llavas import LLAVAS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_model.md").read_text(encoding="utf-8")
FAMILIES = ROOT / "src" / "seva_exp" / "models" / "families"
SHOWN = re.findall(r"```(python|yaml)\n(.*?)```", PAGE, re.DOTALL)
FILES = [FAMILIES / "gemma3.py", ROOT / "conf" / "model" / "gemma3_4b.yaml"]


@pytest.mark.parametrize(("block", "file"), list(zip(SHOWN, FILES, strict=True)))
def test_what_is_shown_is_what_is_there(block: tuple[str, str], file: Path) -> None:
    assert block[1] in file.read_text(encoding="utf-8")


def test_files_and_messages_that_the_page_names_exist() -> None:
    for name in re.findall(r"`((?:models|training|tests|conf)/[\w./]+\.(?:py|yaml))", PAGE):
        assert any((root / name).is_file() for root in (ROOT, ROOT / "src" / "seva_exp")), name
    [message] = re.findall(r"\(`(This processor .*?)`\)", PAGE)
    assert message in (ROOT / "src" / "seva_exp" / "models" / "vlm.py").read_text(encoding="utf-8")


# ViP-LLaVA: LLaVA with the features of several layers of the tower. No preset names it.
FILE = '''"""ViP-LLaVA."""

from seva_exp.models.family import Family, VisionModules
from seva_exp.models.pixels import Tiles


class VipLlava(Family):
    """One picture of one size."""

    model_types = ("vipllava",)
    proven = ("llama",)
    pixels = Tiles()
    vision = VisionModules(("vision_tower",), "multi_modal_projector")
'''
YAML = "kind: hub\npath: {path}\nsystem_prompt: {system}\npad_to_square: true\n"


def vip_llava(folder: Path) -> None:
    """A tiny checkpoint, its files as those of LLaVA-1.5."""
    from transformers import CLIPVisionConfig, LlamaConfig, VipLlavaConfig

    llava = LLAVAS["llava15"]
    checkpoint(
        Family(
            lambda tokens: VipLlavaConfig(
                vision_config=CLIPVisionConfig(**vision(28, 7)),
                text_config=text(LlamaConfig, tokens),
                image_token_index=tokens.convert_tokens_to_ids("<image>"),
                image_seq_length=16,
                vision_feature_layer=[-2, -1],
            ),
            llava.processor,
            llava.images,
            llava.settings,
            llava.template,
            llava.roles,
            begins=True,
        ),
        folder,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what is run, a checkpoint, and the preset that names it."""
    root = tmp_path_factory.mktemp("checkout")
    no_code = shutil.ignore_patterns("*.safetensors", "*.pyc", "__pycache__")
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, root / name, ignore=no_code)
    (root / "pictures").mkdir()
    for turn in range(4):
        draw(60, 30 + 9 * turn, turn).save(root / "pictures" / f"{turn}.png")
    vip_llava(root / "vip")
    preset = YAML.format(path=root / "vip", system=VICUNA)
    (root / "conf" / "model" / "vip_llava.yaml").write_text(preset, encoding="utf-8")
    return root


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Pairs are made and trained on; nothing but the fast ways will do."""
    options = (
        "model=vip_llava +aug=diffusion_noise data=folder data.path=pictures dpo.fast=on "
        "dpo.batch_size=2 generation.max_new_tokens=8 machine.device=cpu machine.dtype=float32 "
        "machine.progress=off tracker=none stop_after=align"
    )
    return subprocess.run(
        [sys.executable, "-m", "seva_exp", *options.split()],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
    )


def test_one_file_and_one_yaml_add_a_family(checkout: Path) -> None:
    done = run(checkout)
    assert done.returncode == 2 and "the family vipllava is not proven" in done.stderr
    (checkout / "src/seva_exp/models/families/vip_llava.py").write_text(FILE, encoding="utf-8")
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    assert "slower" not in done.stdout + done.stderr
    assert list((checkout / "runs").glob("store/align/*/adapter/adapter_model.safetensors"))


def test_two_families_of_one_type_are_refused(checkout: Path) -> None:
    """Else the later of two files would take the place of the other in silence."""
    folder = checkout / "src" / "seva_exp" / "models" / "families"
    (folder / "zzz.py").write_text(FILE.replace('"vipllava"', '"llava"'), encoding="utf-8")
    code = "from seva_exp.models.families import families; families()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
    )
    (folder / "zzz.py").unlink()
    assert "ValueError: llava: named by" in done.stderr
