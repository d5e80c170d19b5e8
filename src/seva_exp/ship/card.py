"""The model card of a finished run: what was trained on what, by which command, what it scored, and
what is not known. Everything in it is read from the run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seva_exp.core.printable import ends, one_line
from seva_exp.core.records import ALIGNED, BASE, Delta, Score
from seva_exp.core.redact import hide, without_secrets
from seva_exp.core.spec import Json
from seva_exp.report.significance import (
    arrow,
    change,
    decimals,
    finding_text,
    in_full,
    interval,
    label,
    number,
    verdict,
)
from seva_exp.runs.reader import FinishedRun
from seva_exp.ship.folders import Weights

MERGED, ADAPTER = "merged", "adapter"
DPO = ("loss", "beta", "learning_rate", "epochs", "batch_size", "lora_rank", "lora_alpha")
"""Fields of ``dpo`` that the card names."""
WHERE = ("machine", "tracker", "data_root=", "hydra")
"""How words of a command begin that say where it ran, and nothing of the model."""


@dataclass(frozen=True)
class Shipped:
    """What the card is about beside the run: ``form`` is ``merged`` or ``adapter``, ``base`` what
    others know the base model by, ``licence`` its card's fields, ``asked`` as
    ``folders.asked_as``."""

    form: str
    weights: Weights
    base: str
    licence: Json
    asked: Mapping[str, Any]
    ours: bool = False
    """Whether the base is the embedded model."""


def card(run: FinishedRun, shipped: Shipped) -> str:
    """The card as Markdown, with the hub's metadata before it."""
    parts = [
        _metadata(run, shipped),
        _head(run, shipped),
        _use(run, shipped),
        _training(run),
        _scores(run),
        _limits(run, shipped),
        _licence(shipped),
        _origin(run),
    ]
    return _without_home("\n\n".join(part.rstrip() for part in parts if part)) + "\n"


def _without_home(text: str) -> str:
    """A person's folder is nobody's business."""
    home = str(Path.home())
    return text.replace(f"{home}/", "~/") if len(home) > 1 else text


def is_hub_id(base: str) -> bool:
    """Whether the base model is called by an id of the hub."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None and not Path(base).exists()


def _metadata(run: FinishedRun, shipped: Shipped) -> str:
    import yaml

    relation = "adapter" if shipped.form == ADAPTER else "finetune"
    fields: Json = {
        **shipped.licence,
        "library_name": "peft" if shipped.form == ADAPTER else "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["seva_exp", "dpo", "preference-alignment", *_views(run)],
    }
    if is_hub_id(shipped.base):
        fields |= {"base_model": shipped.base, "base_model_relation": relation}
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _views(run: FinishedRun) -> list[str]:
    return sorted(run.config.get("aug") or {})


def _head(run: FinishedRun, shipped: Shipped) -> str:
    pairs = run.report.pairs
    given = (run.config.get("data") or {}).get("kind") == "pairs"
    whose = "of a preference set" if given else "of its own answers"
    how = f"with the adapter `{one_line(_elsewhere(run))}`" if _elsewhere(run) else "aligned by DPO"
    count = f" on {pairs.kept:,} preference pairs {whose}" if pairs else ""
    form = {
        MERGED: "The weights are whole: the trained adapter is merged.",
        ADAPTER: "The folder holds a LoRA adapter in PEFT's layout; it needs the base model.",
    }[shipped.form]
    return (
        f"# {one_line(run.report.name)}\n\n{_base(shipped)}, {how}{count}. {form} Its "
        f"numbers are {shipped.weights.dtype}. Made with seva_exp."
    )


def _elsewhere(run: FinishedRun) -> str:
    """The adapter that another program trained, where the run measured one; else empty."""
    return str((run.config.get("method") or {}).get("adapter") or "")


def _base(shipped: Shipped) -> str:
    if is_hub_id(shipped.base):
        return f"[{shipped.base}](https://huggingface.co/{shipped.base})"
    if shipped.ours:
        return "The embedded model of seva_exp (1.7 M parameters, a synthetic world)"
    return f"`{shipped.base}` (a folder of the machine that trained it)"


def _use(run: FinishedRun, shipped: Shipped) -> str:
    asked = shipped.asked
    lines = ["from PIL import Image", "from transformers import AutoModelForImageTextToText"]
    lines += ["from transformers import AutoProcessor", ""]
    lines += ['path = "."  # this folder, or its id on the hub']
    if shipped.form == ADAPTER:
        lines.insert(0, "from peft import PeftModel")
        lines += [f"base = {shipped.base!r}"]
        lines += ['model = AutoModelForImageTextToText.from_pretrained(base, dtype="float32")']
        lines += ["model = PeftModel.from_pretrained(model, path)"]
    else:
        lines += ['model = AutoModelForImageTextToText.from_pretrained(path, dtype="auto")']
    lines += ['processor = AutoProcessor.from_pretrained(path, backend="pil")', ""]
    lines += ['picture = Image.open("picture.jpg").convert("RGB")']
    if colour := asked["square"]:
        lines += [
            "side = max(picture.size)  # on a square, as the model was trained and measured",
            f'square = Image.new("RGB", (side, side), {colour})',
            "left, top = (side - picture.width) // 2, (side - picture.height) // 2",
            "square.paste(picture, (left, top))",
            "picture = square",
        ]
    lines += [
        'question = "What is in this picture?"',
        f"text = {asked['around']!r}.replace('{{question}}', question)",
        "inputs = processor(",
        '    text=[text], images=[picture], return_tensors="pt",',
        f"    add_special_tokens={asked['add_special_tokens']},",
        ").to(model.device, model.dtype)",
        "tokens = model.generate(**inputs, max_new_tokens=512, do_sample=False)",
        'answer = tokens[0, inputs["input_ids"].shape[1]:]',
        "print(processor.tokenizer.decode(answer, skip_special_tokens=True).strip())",
    ]
    code = "\n".join(lines)
    note = (
        "\n\nNames of weights are those that vLLM knows; transformers 5 loads them, too."
        if shipped.weights.renamed
        else ""
    )
    return f"## Use\n\n```python\n{code}\n```{note}"


def _training(run: FinishedRun) -> str:
    if _elsewhere(run):
        return "## Training\n\nBy another program or run; this one measured it."
    config, pairs = run.config, run.report.pairs
    rows = [("method", _inline(config.get("method"), ("kind", "negatives", "rounds")))]
    rows += [("data", _inline(config.get("data"), None))]
    for name, source in sorted((config.get("aug") or {}).items()):
        rows += [(f"rejected answers, `{one_line(str(name))}`", _inline(source, None))]
    if pairs:
        dropped = ", ".join(f"{n:,} {reason}" for reason, n in pairs.dropped.items()) or "none"
        kept = f"{pairs.kept:,} of {pairs.sampled:,} samples; dropped: {dropped}"
        rows += [("preference pairs", kept)]
    rows += [("DPO", _inline(config.get("dpo"), DPO))]
    if config.get("sft"):
        rows += [("fine-tuning behind it", _inline(config["sft"], DPO))]
    rows += [("steps", ", ".join(_steps(run)) or "none"), ("seed", str(run.report.seed))]
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows if value)
    words = [word for word in run.command if not word.lstrip("+~").startswith(WHERE)]
    command = f"\n\n```bash\n{hide(shlex.join(words))}\n```" if words else ""
    return f"## Training\n\n| | |\n|---|---|\n{table}{command}"


def _inline(group: Any, fields: Sequence[str] | None) -> str:
    """A group's fields that are set, on one line."""
    values = without_secrets(group) if isinstance(group, Mapping) else {}
    names = fields or list(values)
    found = [(name, values[name]) for name in names if values.get(name) not in (None, "", {}, [])]
    return ", ".join(f"{name}={ends(one_line(str(value)), 120)}" for name, value in found)


def _steps(run: FinishedRun) -> Iterator[str]:
    for stage in run.report.stages:
        if stage.steps:
            yield f"{stage.steps:,} ({stage.name})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _scores(run: FinishedRun) -> str:
    scores = [one for one in run.report.scores if one.model in (BASE, ALIGNED)]
    if not scores:
        return "## Evaluation\n\nNothing was measured."
    tables = []
    for name, protocol in dict.fromkeys((one.benchmark, one.protocol) for one in scores):
        mine = [one for one in scores if (one.benchmark, one.protocol) == (name, protocol)]
        rows = "\n".join(_rows(mine, run.report.final_deltas))
        head = "| metric | base | aligned | change | p | n | |\n|---|---:|---:|---:|---:|---:|---|"
        tables.append(f"### {name}\n\nProtocol `{protocol}`.\n\n{head}\n{rows}")
    about = (
        "Base and aligned model answered the same questions. In brackets: 95 % intervals of a "
        "bootstrap over pictures; changes are paired."
    )
    return "\n\n".join(["## Evaluation", about, *tables])


def _rows(scores: Sequence[Score], deltas: Sequence[Delta]) -> Iterator[str]:
    for split, metric in dict.fromkeys((one.split, one.metric) for one in scores):
        both = {one.model: one for one in scores if (one.split, one.metric) == (split, metric)}
        some = next(iter(both.values()))
        delta = next(
            (
                one
                for one in deltas
                if (one.benchmark, one.split, one.metric) == (some.benchmark, split, metric)
            ),
            None,
        )
        cells = [
            f"{label(split, metric)} {arrow(some.better)}".strip(),
            *(_score(both.get(model)) for model in (BASE, ALIGNED)),
            *(_delta(delta) if delta else ("", "")),
            f"{some.n:,}",
            in_full(delta) if delta else "",
        ]
        yield f"| {' | '.join(cells)} |"


def _score(score: Score | None) -> str:
    if score is None:
        return ""
    digits = decimals(score.low, score.high)
    return f"{number(score.value, digits)} {interval(score.low, score.high, digits)}"


def _delta(delta: Delta) -> tuple[str, str]:
    digits = decimals(delta.low, delta.high)
    shown = interval(delta.low, delta.high, digits, sign=True)
    p = "< 0.001" if delta.p < 0.001 else f"{delta.p:.3f}"
    return f"{number(delta.value, digits, sign=True)} {shown}", p


def _limits(run: FinishedRun, shipped: Shipped) -> str:
    report, lines = run.report, []
    measured = sorted({one.benchmark for one in report.scores if one.model == ALIGNED})
    lines += [
        f"Measured on {', '.join(measured)} and on nothing else."
        if measured
        else "Its answers were never compared with the base model's on a benchmark."
    ]
    bad = [one for one in report.final_deltas if verdict(one) in ("worse", "at a price")]
    lines += [f"{change(one, with_benchmark=True)}." for one in bad]
    if measured and all(verdict(one) == "not significant" for one in report.final_deltas):
        lines += ["No metric changed by more than chance explains."]
    lines += [f"{finding_text(one)}." for one in report.findings]
    if shipped.weights.lost > 0.005:
        share = f"{shipped.weights.lost:.0%}"
        lines += [
            f"Of a layer's trained change up to {share} is lost by rounding to "
            f"{shipped.weights.dtype}; the numbers above are of the adapter beside the weights."
        ]
    if quantization := run.model().quantization:
        lines += [f"It was trained and measured over {quantization} weights."]
    lines += [
        "Preferences of a model's own answers teach it to be consistent and careful; they bring no "
        "new knowledge. It can still describe what is not in a picture."
    ]
    return "## Limits\n\n" + "\n".join(f"* {one_line(line)}" for line in lines)


def _licence(shipped: Shipped) -> str:
    found = shipped.licence
    if not found:
        return (
            "## Licence\n\nThe base model's licence holds, and its card could not be read here: "
            f"look at {_base(shipped)}."
        )
    name = found.get("license_name") or found["license"]
    link = f" ({found['license_link']})" if found.get("license_link") else ""
    return f"## Licence\n\nThe base model's licence holds: {one_line(name)}{one_line(link)}."


def _origin(run: FinishedRun) -> str:
    report, trained = run.report, run.trained
    assert trained
    manifest = run.manifest(trained.name)
    packages = (manifest.environment.get("packages") or {}) if manifest else {}
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "transformers", "peft") if name in packages
    )
    computed = manifest.environment.get("dtype", "") if manifest else ""
    lines = [
        f"* run `{report.key[:12]}`, {run.finished_at:%Y-%m-%d}",
        f"* {trained.name} `{trained.key[:12]}`",
    ]
    lines += [f"* computed in {computed}, with {versions}"] if computed and versions else []
    return "## Origin\n\n" + "\n".join(lines)
