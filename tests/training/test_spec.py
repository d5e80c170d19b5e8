"""What can be asked for: losses by name or with weights, from Python and from the command line."""

from __future__ import annotations

import json

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError

from seva_exp import InputError
from seva_exp.command.config import parse
from seva_exp.core.field_docs import field_docs
from seva_exp.core.paths import config_dir, options_of
from seva_exp.core.spec import digest
from seva_exp.experiment.preflight import _check_fast
from seva_exp.models import HubModel, TinyModel
from seva_exp.training import DpoTraining, SftTraining
from seva_exp.training.spec import LOSSES


def composed(*overrides: str, aug: str = "moco") -> dict:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("config", [f"+aug={aug}", *overrides]), resolve=True)


def dpo(*overrides: str, aug: str = "moco") -> DpoTraining:
    return parse(composed(*overrides, aug=aug)).experiment.dpo


def test_one_value_has_one_form():
    same = ["sigmoid", {"sigmoid": 1.0}, {"sigmoid": 1}, {"sigmoid": 1.0, "sft": 0}]
    assert len({digest(DpoTraining(loss=loss).to_json()) for loss in same}) == 1
    assert len({str(DpoTraining(loss=loss)) for loss in same}) == 1
    two = DpoTraining(loss={"sft": 0.1, "image": 1.0})
    assert two == DpoTraining(loss={"image": 1, "sft": 0.1}) != DpoTraining(loss="image")
    assert DpoTraining.model_validate_json(two.model_dump_json()) == two
    assert (two.terms, two.trl_terms, two.our_terms, two.needs) == (
        {"image": 1.0, "sft": 0.1}, {"sft": 0.1}, {"image": 1.0}, {"images": "image"}
    )  # fmt: skip
    assert DpoTraining(loss="softmax").needs == {} and len(LOSSES) == 25


REFUSED = [
    ({"loss": "sigmoidd"}, "Did you mean 'sigmoid'"),
    ({"loss": {"chosen_nl": 1}}, "Did you mean 'chosen_nll'"),
    ({"loss": {}}, "no loss has a weight"),
    ({"loss": {"sigmoid": 0.0}}, "no loss has a weight"),
    ({"loss": {"sigmoid": -1.0}}, "sigmoid=-1.0"),
    ({"loss": {"sigmoid": float("nan")}}, "sigmoid=nan"),
    ({"loss": {"sigmoid": float("inf")}}, "sigmoid=inf"),
    ({"loss": {"sigmoid": True}}, "sigmoid=True"),
    ({"loss": {"sigmoid": "1"}}, "sigmoid=1"),
    ({"loss": ["sigmoid"]}, "give the name of a loss"),
    ({"loss": None}, "give the name of a loss"),
    ({"loss": "exo_pair"}, "the loss exo_pair needs more than 0"),
    ({"loss": "robust", "label_smoothing": 0.5}, "the loss robust needs less than 0.5"),
    ({"label_smoothing": 0.1}, "no loss of sigmoid is changed by it"),
    ({"projector_learning_rate": 1e-5}, "Set train_projector=true"),
    ({"repeat": 0}, "repeat"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_recipe_that_cannot_be_is_refused(values, said):
    with pytest.raises(ValidationError) as caught:
        DpoTraining(**values)
    assert len(caught.value.errors()) == 1
    assert said in str(caught.value)


def test_a_wrong_loss_is_one_line_on_the_command_line():
    with pytest.raises(
        ValueError, match=r"^dpo\.loss=hinje: no loss is named 'hinje'. Did you"
    ) as e:
        dpo("dpo.loss=hinje")
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "terms"),
    [
        (["dpo.loss=hinge"], {"hinge": 1}),
        (["dpo.loss={sigmoid: 1, sft: 0.1}"], {"sigmoid": 1, "sft": 0.1}),
        (["dpo=stic", "dpo.loss.chosen_nll=0.002"], {"sigmoid": 1, "chosen_nll": 0.002}),
        (["dpo=stic", "dpo.loss.chosen_nll=0"], {"sigmoid": 1}),
        (["dpo=stic", "dpo.loss=sigmoid"], {"sigmoid": 1}),
        (["dpo=stic", "dpo.loss=softmax"], {"softmax": 1}),
        (["dpo=mdpo", "+dpo.loss.chosen_nll=0.1"],
         {"sigmoid": 1, "image": 1, "anchor": 1, "chosen_nll": 0.1}),
    ],
)  # fmt: skip
def test_losses_are_set_on_the_command_line(overrides, terms):
    assert dpo(*overrides).terms == terms


@pytest.mark.parametrize("name", options_of("dpo"))
def test_every_recipe_is_fitted_to_the_embedded_model_and_left_as_published_elsewhere(name):
    aug = "lpoi_masks" if name == "lpoi" else "moco"
    more = ["ambiguity=weak"] if name == "agreement" else []
    fitted = dpo(f"dpo={name}", *more, aug=aug)
    published = dpo(f"dpo={name}", "model=llava15_7b", *more, aug=aug)
    assert fitted.terms == published.terms and fitted.beta == published.beta
    recipe = {"loss", "weights", "beta", "label_smoothing", "discopop_tau"}
    assert (
        fitted.to_json().items()
        >= {
            key: value for key, value in DpoTraining().to_json().items() if key not in recipe
        }.items()
    )
    assert published.learning_rate < 1e-5 and published.lora_rank >= 128


def test_stic_s_numbers_are_the_paper_s():
    stic = dpo("dpo=stic", "model=llava15_7b")
    assert stic.terms == {"sigmoid": 1.0, "chosen_nll": 1 / 1024}
    assert (stic.learning_rate, stic.batch_size, stic.warmup_ratio) == (1e-7, 4, 0.03)
    assert (stic.lora_rank, stic.lora_alpha, stic.schedule) == (128, 256, "cosine")
    assert (stic.train_projector, stic.projector_learning_rate) == (True, 2e-5)


def test_fine_tuning_has_stic_s_numbers_and_its_defaults_are_the_fitted_ones():
    read = {
        name: OmegaConf.to_container(OmegaConf.load(config_dir() / "sft" / f"{name}.yaml"))
        for name in ("stic", "fit/stic_tiny")
    }
    assert read["stic"].pop("defaults") == ["_self_", {"optional fit@_here_": "stic_${model}"}]
    stic = SftTraining.model_validate_json(json.dumps(read["stic"]))
    assert (stic.learning_rate, stic.batch_size, stic.epochs) == (2e-5, 64, 1)
    assert (stic.warmup_ratio, stic.projector_learning_rate) == (0.03, 2e-5)
    fitted = json.dumps(read["stic"] | read["fit/stic_tiny"])
    assert SftTraining.model_validate_json(fitted) == SftTraining()


def test_every_field_is_told_in_one_line():
    """An error message ends with it."""
    for cls in (DpoTraining, SftTraining):
        docs = field_docs(cls)
        for name in cls.model_fields:
            assert docs.get(name) and "\n" not in docs[name], name


def test_a_family_that_is_not_proven_is_refused_by_its_config(tmp_path):
    """With ``auto`` it is plain rows; ``off`` and ``auto`` are no mistake."""
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text('{"model_type": "kosmos-2"}', encoding="utf-8")
    model = HubModel(path=str(folder))
    with pytest.raises(InputError, match=r"dpo.fast=on: the family kosmos-2 is not proven. Use"):
        _check_fast(DpoTraining(fast="on"), model)
    for fast in ("auto", "off"):
        _check_fast(DpoTraining(fast=fast), model)
    _check_fast(DpoTraining(fast="on"), TinyModel())
