"""Memory while many samples stream through samples, answers and pairs, with a stub-sized model.

    python perf/stream.py                        200,000 samples (about 20 minutes on a quiet core)
    python perf/stream.py --samples 20000        fewer
    python perf/stream.py --processes 2          memory of all processes together
    python perf/stream.py --work DIR             goes on there after a kill, when given again
    python perf/stream.py --json memory.json     and the figures for machines

The model is a real LLaVA of 2 layers and width 16 with random weights, saved to a folder and named
as ``model.path``; the data is a jsonl file of different questions on a few small pictures. Answers
have 2 tokens at most, so that the run spends its time on what is to be measured: the bookkeeping
for each sample. Resident memory is read ten times a second; a quarter is one of the run's (or a
stage's) time. Exit code 1 where the peak of the last quarter is above the first's by more than 5 %.
With ``--work`` what was seen is kept there too: the figures are those of all attempts together.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIDE, PATCH = 12, 6
PICTURES, TOGETHER = 64, 20
"""Different pictures; questions that stand together on one."""
ALLOWED = 1.05
PERIOD = 0.1


def save_model(folder: Path) -> None:
    """A checkpoint folder as the hub has them: 2 layers, width 16, 4 image tokens."""
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        GenerationConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    from seva_exp.models.tiny import CHAT_TEMPLATE, IMAGE_TOKEN, build_tokenizer

    tokenizer = build_tokenizer()
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, **shape),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            **shape,
            **special,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_layer=-1,
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_data(folder: Path, samples: int) -> Path:
    """``rows.jsonl`` beside its pictures."""
    from PIL import Image

    file = folder / "rows.jsonl"
    if file.exists():
        return file
    folder.mkdir(exist_ok=True)
    rng = random.Random(0)
    for number in range(PICTURES):
        pixels = rng.randbytes(3 * SIDE * SIDE)
        Image.frombytes("RGB", (SIDE, SIDE), pixels).save(folder / f"{number}.png")
    unfinished = file.with_suffix(".tmp")
    with unfinished.open("w", encoding="utf-8") as rows:
        for number in range(samples):
            picture = f"{number // TOGETHER % PICTURES}.png"
            row = {"image": picture, "question": f"What is {rng.randrange(1000)} times {number}?"}
            rows.write(json.dumps(row) + "\n")
    return unfinished.rename(file)


class Watch(threading.Thread):
    """Peaks of the resident memory of this process and its children, second by second, as lines of
    ``file``: it holds none of them itself."""

    def __init__(self, file: Path) -> None:
        super().__init__(daemon=True)
        self.stage = ""
        self._file = file
        self._over = threading.Event()

    def run(self) -> None:
        import psutil

        own = psutil.Process()
        last, peak, stage = time.monotonic(), 0, ""
        with self._file.open("a", encoding="utf-8") as file:
            while not self._over.wait(PERIOD):
                size = 0
                for process in (own, *own.children(recursive=True)):
                    try:
                        size += process.memory_info().rss
                    except psutil.NoSuchProcess:
                        continue
                now = time.monotonic()
                if stage and (stage != self.stage or now - last >= 1):
                    file.write(json.dumps([stage, round(now - last, 2), peak]) + "\n")
                    file.flush()
                    last, peak = now, 0
                stage, peak = self.stage, max(peak, size)

    def stop(self) -> None:
        self._over.set()
        self.join()

    def seen(self) -> list[tuple[str, float, int]]:
        """(stage, seconds of work before, bytes), those of earlier attempts first."""
        found, elapsed = [], 0.0
        for line in self._file.read_text(encoding="utf-8").splitlines():
            stage, seconds, size = json.loads(line)
            found.append((stage, elapsed, size))
            elapsed += seconds
        return found


def quarters(seen: Sequence[tuple[float, int]]) -> list[float]:
    """Peak in MiB of each quarter of the time, 0 where nothing was seen; values are (seconds,
    bytes)."""
    first, last = seen[0][0], seen[-1][0]
    peaks = [0.0] * 4
    for moment, size in seen:
        quarter = min(3, int(4 * (moment - first) / (last - first or 1)))
        peaks[quarter] = max(peaks[quarter], size / 2**20)
    return [round(peak, 1) for peak in peaks]


def grew(peaks: Sequence[float]) -> bool:
    """Whether the last quarter's peak is above the first's by more than is allowed."""
    return peaks[-1] > ALLOWED * peaks[0]


def stream(samples: int, processes: int, work: Path) -> dict[str, Any]:
    """Run it and watch."""
    from seva_exp import Experiment, Machine, Options
    from seva_exp.augment import HorizontalFlip
    from seva_exp.data import JsonlData
    from seva_exp.decoding import HfGeneration
    from seva_exp.experiment import run
    from seva_exp.models import HubModel
    from seva_exp.runs.events import Listener, PlannedStage

    watch = Watch(work / "seen.jsonl")

    class Stages(Listener):
        def stage_started(self, stage: PlannedStage) -> None:
            watch.stage = stage.name

    if not (work / "model" / "tokenizer.json").exists():
        save_model(work / "model")
    experiment = Experiment(
        aug={"flip": HorizontalFlip(probability=1.0)},
        model=HubModel(path=str(work / "model")),
        data=JsonlData(path=str(write_data(work / "data", samples))),
        generation=HfGeneration(max_new_tokens=2),
        benchmark={},
    )
    machine = Machine(
        device="cpu",
        batch_size=256,
        processes=processes,
        threads=1,
        store=str(work / "store"),
        runs=str(work / "runs"),
        progress="lines",
    )
    watch.start()
    report = run(experiment, machine, Options(stop_after="pairs"), listeners=[Stages()])
    watch.stop()
    assert report.pairs and report.pairs.sampled == samples, "--work is another number's folder"
    seen = watch.seen()
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    files = [file for file in (work / "store").rglob("*") if file.is_file()]
    return {
        "samples": samples,
        "processes": processes,
        "seconds": round(seen[-1][1] - seen[0][1], 1),
        "peak_mib": round(max(size for _, _, size in seen) / 2**20, 1),
        "store_mib": round(sum(file.stat().st_size for file in files) / 2**20, 1),
        "store_files": len(files),
        "quarters_mib": quarters([(moment, size) for _, moment, size in seen]),
        "stages": {
            name: quarters([(moment, size) for stage, moment, size in seen if stage == name])
            for name in stages
        },
        "stage_seconds": {name: round(seconds_of(name, seen), 1) for name in stages},
    }


def seconds_of(name: str, seen: Sequence[tuple[str, float, int]]) -> float:
    """The time that a stage took, over all attempts."""
    ends = [moment for _, moment, _ in seen[1:]] + [seen[-1][1]]
    return sum(end - one[1] for one, end in zip(seen, ends, strict=True) if one[0] == name)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--work", type=Path, help="kept; the same command goes on in it")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = stream(arguments.samples, arguments.processes, folder)
    first, *_, last = found["quarters_mib"]
    found["last_to_first"] = round(last / first, 3)
    print(
        f"{found['samples']} samples in {found['seconds']} s; store {found['store_mib']} MiB in "
        f"{found['store_files']} files; peak {found['peak_mib']} MiB, of each quarter:"
    )
    for name, peaks in {"run": found["quarters_mib"], **found["stages"]}.items():
        print(f"  {name:16}" + "".join(f"{peak:9.1f}" for peak in peaks))
    print(f"last quarter to first: {found['last_to_first']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(grew(found["quarters_mib"]))


if __name__ == "__main__":
    sys.exit(main())
