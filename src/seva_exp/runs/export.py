"""A run's predictions as the result files of other harnesses, and its pairs as other trainers'
data: `python -m seva_exp.export RUN --format FORMAT --out DIR`.

VLMEvalKit's evaluators read a table a model and benchmark; lmms-eval's tools read samples, a line
each, beside the scores of a run. The answers are those to this run's protocol, whatever reads them.
TRL, LLaMA-Factory, ms-swift and RLAIF-V read pairs; `page` is one to look through them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from seva_exp.benchmarks.base import Benchmark
from seva_exp.core.arguments import command_parser
from seva_exp.core.errors import InputError
from seva_exp.core.printable import as_cell, one_line
from seva_exp.core.records import Prediction, read_jsonl, whole_file
from seva_exp.core.spec import Json
from seva_exp.core.terminal import exit_code
from seva_exp.inputs.user_paths import data_root
from seva_exp.runs.listing import run_argument, run_folder
from seva_exp.runs.pair_files import PAIR_FORMATS, PairFormat, ms_swift, read_pairs_run
from seva_exp.runs.reader import Evaluated, FinishedRun


def read_run(folder: Path) -> FinishedRun:
    """Raises InputError when the folder holds no finished run that measured something."""
    run = FinishedRun.read(folder)
    found = list(run.evaluated())
    if not found:
        raise InputError(f"{folder}: this run measured nothing (benchmark=NAME measures).")
    for one in found:
        if not one.predictions.is_file():
            raise InputError(f"{one.predictions}: is gone from the store; run the command again.")
    return run


def _name(run: FinishedRun, model: str) -> str:
    """The run's and the model's name, as a file's."""
    return re.sub(r"[^\w.-]+", "-", f"{run.report.name}_{model}")


def vlmevalkit(run: FinishedRun, out: Path, root: Path | None) -> Iterator[Path]:
    """``MODEL/MODEL_DATASET.tsv``: the table's own columns without the picture, and
    ``prediction``; no cell is a formula to a spreadsheet. Needs the benchmarks' files. Raises
    InputError when they are not those that the run read."""
    for one in run.evaluated():
        benchmark = run.benchmark(one.benchmark)
        rows = list(_with_predictions(one, benchmark, root))
        name = _name(run, one.model)
        own = "" if one.benchmark == benchmark.to_json()["kind"] else f"_{one.benchmark}"
        path = out / name / f"{name}{own}_{benchmark.table_name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            table = csv.DictWriter(
                file, columns, "", delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n"
            )
            table.writeheader()
            table.writerows({name: as_cell(cell) for name, cell in row.items()} for row in rows)
        yield path


def _with_predictions(one: Evaluated, benchmark: Benchmark, root: Path | None) -> Iterator[Json]:
    texts = {row.sample_id: row.text for row in read_jsonl(one.predictions, Prediction)}
    rows = list(benchmark.table_rows(root))
    if [name for name, _ in rows] != list(texts):
        raise InputError(
            f"benchmark.{one.benchmark}: the files below {root} are not those of the run: their "
            "questions differ. Give the folder that it read (--data-root DIR)."
        )
    for name, row in rows:
        yield row | {"prediction": texts[name]}


def lmms_eval(run: FinishedRun, out: Path, root: Path | None) -> Iterator[Path]:
    """``MODEL/DATE_results.json`` with the scores, and ``MODEL/DATE_samples_TASK.jsonl`` with every
    answer that has a score. A task is called as the benchmark is here."""
    date = run.finished_at.strftime("%Y%m%d_%H%M%S")
    by_model: dict[str, list[Evaluated]] = {}
    for one in run.evaluated():
        by_model.setdefault(one.model, []).append(one)
    for model, mine in by_model.items():
        name = _name(run, model)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        hashes: dict[str, str] = {}
        counts: dict[str, list[int]] = {}
        for one in mine:
            path = folder / f"{date}_samples_{one.benchmark}.jsonl"
            hashes[one.benchmark], *counts[one.benchmark] = _write_samples(path, one)
            yield path
        path = folder / f"{date}_results.json"
        results = _results(run, model) | {
            "n-samples": {
                task: {"original": questions, "effective": scored}
                for task, (questions, scored) in counts.items()
            },
            "config": {"model": "seva_exp", "model_args": name},
            "date": date,
            "task_hashes": hashes,
            "model_source": "seva_exp",
            "model_name": name,
            "model_name_sanitized": name,
        }
        path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        yield path


def _write_samples(path: Path, one: Evaluated) -> tuple[str, int, int]:
    """The task's hash, how many questions it has, and how many of them have a score. ``doc_id`` is
    the place among them."""
    hashes, count, scored = "", 0, 0
    with whole_file(path) as file:
        for row in read_jsonl(one.predictions, Prediction):
            sample = _sample(count, row)
            hashes += f"sample_{count}{sample['doc_hash']}"
            count += 1
            if row.score is not None:  # what is not judged would be compared with the target there
                file.write((json.dumps(sample, ensure_ascii=False) + "\n").encode())
                scored += 1
    return _sha256(hashes), count, scored


def _sample(number: int, row: Prediction) -> Json:
    return {
        "doc_id": number,
        "target": row.target,
        "resps": [[row.text]],
        "filtered_resps": [row.extracted],
        "doc_hash": _sha256(f"{row.sample_id}\n{row.target}"),
        "prompt_hash": _sha256(row.prompt),
        "target_hash": _sha256(row.target),
        "score": row.score,
        "question_id": row.sample_id,
        "category": row.type,
        "input": row.prompt,
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _results(run: FinishedRun, model: str) -> Json:
    """Values in the units of ``report.json``; the standard error is the interval's width / 3.92."""
    better = {"higher": True, "lower": False}
    results: dict[str, Json] = {}
    higher: dict[str, Json] = {}
    configs: dict[str, Json] = {}
    for score in run.report.scores:
        if score.model != model:
            continue
        task, split = score.benchmark, score.split
        metric = score.metric if split in ("", "all") else f"{split}_{score.metric}"
        found = results.setdefault(task, {"alias": task})
        found[f"{metric},none"] = score.value
        found[f"{metric}_stderr,none"] = (score.high - score.low) / 3.92
        higher.setdefault(task, {})[metric] = better.get(score.better)
        configs[task] = {
            "task": task,
            "output_type": "generate_until",
            "metric_list": [{"metric": "score"}],
            "metadata": {"harness": "seva_exp", "protocol": score.protocol},
        }
    return {
        "results": results,
        "group_subtasks": {task: [] for task in results},
        "configs": configs,
        "versions": dict.fromkeys(results, "seva_exp"),
        "n-shot": dict.fromkeys(results, 0),
        "higher_is_better": higher,
    }


Predictions = Callable[[FinishedRun, Path, Path | None], Iterator[Path]]
FORMATS: dict[str, Predictions] = {"vlmevalkit": vlmevalkit, "lmms_eval": lmms_eval}
"""Of predictions; those of pairs are ``pair_files.PAIR_FORMATS``."""


def main(words: Sequence[str] | None = None, pages: Mapping[str, PairFormat] | None = None) -> int:
    """The command line; ``pages`` are further formats of pairs, for people."""
    pairs = {**PAIR_FORMATS, **(pages or {})}
    options = _parser([*FORMATS, *pairs]).parse_args(words)

    def work() -> None:
        if options.rejected_images:
            if options.format != "ms_swift":
                raise InputError("--rejected-images: is a field of --format ms_swift alone.")
            pairs["ms_swift"] = partial(ms_swift, rejected_images=True)
        for path in _exported(options, pairs):
            print(one_line(str(path)))

    return exit_code(work)


def _parser(formats: Sequence[str]) -> argparse.ArgumentParser:
    parser = command_parser("export", __doc__)
    run_argument(parser)
    parser.add_argument(
        "--format",
        choices=formats,
        metavar="FORMAT",
        required=True,
        help=f"one of {', '.join(formats)}",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--data-root", help="where the benchmarks' files lie, if not where the run read them"
    )
    parser.add_argument(
        "--rejected-images",
        action="store_true",
        help="ms_swift: also the picture that each rejected answer was given to",
    )
    return parser


def _exported(options: argparse.Namespace, pairs: Mapping[str, PairFormat]) -> Iterator[Path]:
    of_pairs = options.format in pairs
    run = (read_pairs_run if of_pairs else read_run)(run_folder(options.run))
    root = None if of_pairs else data_root(options.data_root or run.data_root)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out={options.out}: no folder ({error.strerror}).") from error
    if of_pairs:
        yield from pairs[options.format](run, options.out)
    else:
        yield from FORMATS[options.format](run, options.out, root)
