"""The files in conf/aug and the classes' fields: every default stated, every bound kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from seva_exp.augment import SOURCES, AnySource
from seva_exp.core.field_docs import field_docs

CONF = Path(__file__).parents[2] / "conf" / "aug"

FILES = {
    **{kind: kind for kind in SOURCES},
    "color_jitter_seva": "color_jitter",
    "mdpo_crop": "random_resized_crop",
    "another_picture": "blend",
}
"""Config file -> kind; more than one file of a kind when papers differ in its strength."""


SEVERAL = {"lpoi_masks": [0.05, 0.1, 0.15, 0.2], "noise_steps": [500, 650, 800]}
"""Files of several views of one kind: their strengths."""


def test_every_class_has_its_file_and_the_other_way_round():
    assert {path.stem for path in CONF.glob("*.yaml")} == {*FILES, *SEVERAL}


@pytest.mark.parametrize("file", SEVERAL)
def test_a_file_of_several_views_gives_each_its_name_and_its_strength(file):
    text = (CONF / f"{file}.yaml").read_text()
    assert text.startswith("# @package aug\n") and "\n# Source: " in text
    values = yaml.safe_load(text).values()
    views = [TypeAdapter(AnySource).validate_python(one) for one in values]
    assert [view.strength for view in views] == pytest.approx(SEVERAL[file])
    assert [view.to_json() for view in views] == list(values)


def test_what_has_an_order_is_the_stronger_the_more_it_changes():
    pairs = {
        "object_mask": ({"area_max": 0.1}, {"area_max": 0.3}),
        "diffusion_noise": ({"step": 300}, {"step": 800}),
        "diffusion_noise_image": ({"step": 300}, {"step": 800}),
        "povid_noise": ({"step": 300}, {"step": 800}),
        "low_resolution": ({"side": 40}, {"side": 20}),
        "blend": ({"share_max": 0.5}, {"share_max": 0.6}),
        "gaussian_blur": ({"radius_max": 1.0}, {"radius_max": 3.0}),
        "adversarial": ({"eps": 4}, {"eps": 8}),
    }
    for kind, (weak, strong) in pairs.items():
        assert SOURCES[kind](**weak).strength < SOURCES[kind](**strong).strength
    assert {kind for kind, cls in SOURCES.items() if cls().strength is not None} == set(pairs)


def test_a_second_file_of_a_kind_states_every_field_too():
    text = (CONF / "color_jitter_seva.yaml").read_text()
    assert text.startswith("# @package aug.color_jitter_seva\n")
    values = yaml.safe_load(text)
    assert set(values) == set(SOURCES["color_jitter"].model_fields)
    assert list(values.values()) == ["color_jitter", 0.4, 0.4, 0.4, 0.1]
    assert TypeAdapter(AnySource).validate_python(values).hue == 0.1


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_file_states_every_default(kind):
    text = (CONF / f"{kind}.yaml").read_text()
    assert text.startswith(f"# @package aug.{kind}\n")
    values = yaml.safe_load(text)
    assert values == SOURCES[kind]().to_json()
    assert TypeAdapter(AnySource).validate_json(json.dumps(values)) == SOURCES[kind]()


@pytest.mark.parametrize(("file", "kind"), sorted(FILES.items()))
def test_every_parameter_has_a_comment_and_a_description(file, kind):
    lines = (CONF / f"{file}.yaml").read_text().splitlines()
    assert any(line.startswith("# Source: ") for line in lines)
    assert all("#" in line for line in lines if not line.startswith("kind:"))
    fields = SOURCES[kind].model_fields
    assert fields.keys() - {"kind"} <= field_docs(SOURCES[kind]).keys()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("moco", "scale_min", 0.0), ("moco", "scale_max", 1.1), ("moco", "flip_probability", 1.5),
        ("moco", "size", 3), ("color_jitter", "hue", 0.6), ("color_jitter", "brightness", -0.1),
        ("low_resolution", "side", 0), ("gaussian_blur", "radius_max", float("inf")),
        ("horizontal_flip", "probability", -0.1), ("random_resized_crop", "ratio_min", 0.0),
        ("moco", "hues", 0.1), ("random_posterize", "bits", 0), ("random_posterize", "bits", 9),
        ("random_solarize", "threshold", 256), ("pad", "padding", 0), ("patch_shuffle", "grid", 1),
        ("object_mask", "area_max", 1.0), ("object_mask", "fill", "black"),
        ("blend", "mode", "cut"),
        ("random_affine", "scale_min", 0.0), ("rand_augment", "magnitude", 31),
        ("random_rotation", "degrees_max", 400), ("bad_prompt", "prompts", ""),
        ("another_candidate", "temperature", 0.0), ("another_candidate", "number", 0),
        ("answer_file", "path", ""), ("swap_words", "share", 0.0), ("swap_words", "words", {}),
    ],
)  # fmt: skip
def test_bounds_are_checked_and_named(kind, field, value):
    with pytest.raises(ValidationError, match=field):
        SOURCES[kind](**{field: value})


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("moco", {"scale_min": 0.9}, {"scale_max": 0.5}),
        ("moco", {"ratio_min": 2.0}, {"ratio_max": 1.0}),
        ("moco", {"radius_min": 3.0}, {"radius_max": 2.0}),
        ("gaussian_blur", {"radius_min": 3.0}, {"radius_max": 2.0}),
        ("random_resized_crop", {"scale_min": 0.6}, {"scale_max": 0.5}),
        ("random_resized_crop", {"ratio_min": 2.0}, {"ratio_max": 1.0}),
        ("byol", {"scale_min": 0.9}, {"scale_max": 0.5}),
        ("random_rotation", {"degrees_min": 50.0}, {"degrees_max": 40.0}),
        ("random_affine", {"degrees_min": 50.0}, {"degrees_max": 40.0}),
        ("random_affine", {"scale_min": 0.9}, {"scale_max": 0.5}),
        ("object_mask", {"count_min": 4}, {"count_max": 3}),
        ("object_mask", {"area_min": 0.5}, {"area_max": 0.3}),
        ("object_mask", {"ratio_min": 2.0}, {"ratio_max": 1.0}),
        ("blend", {"share_min": 0.6}, {"share_max": 0.5}),
    ],
)
def test_ranges_that_are_upside_down_are_refused(kind, low, high):
    with pytest.raises(ValidationError, match=f"{next(iter(low))}.*{next(iter(high))}"):
        SOURCES[kind](**low, **high)


def test_import_is_light():
    code = "import sys, seva_exp.augment\nprint(*{'torch', 'kornia', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
