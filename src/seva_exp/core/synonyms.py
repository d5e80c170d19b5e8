"""What people write who know another tool, and what the same is called here: for suggestions."""

from __future__ import annotations

SYNONYMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("lr", "peak_lr", "max_lr"), ("dpo.learning_rate",)),
    **dict.fromkeys(("bs", "batch", "batch_size"), ("dpo.batch_size", "machine.batch_size")),
    "gradient_accumulation_steps": ("dpo.batch_size", "machine.train_batch_size"),
    "per_device_train_batch_size": ("machine.train_batch_size",),
    "micro_batch_size": ("machine.train_batch_size",),
    "per_device_eval_batch_size": ("machine.batch_size",),
    **dict.fromkeys(("epoch", "num_epochs", "num_train_epochs"), ("dpo.epochs",)),
    **dict.fromkeys(("steps", "max_steps", "num_steps"), ("dpo.epochs", "data.samples")),
    **dict.fromkeys(("r", "rank", "lora_r"), ("dpo.lora_rank",)),
    "alpha": ("dpo.lora_alpha",),
    "target_modules": ("dpo.lora_modules",),
    **dict.fromkeys(("warmup", "warmup_steps"), ("dpo.warmup_ratio",)),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_scheduler_type"), ("dpo.schedule",)),
    **dict.fromkeys(("grad_clip", "clip_grad", "max_grad"), ("dpo.max_grad_norm",)),
    "wd": ("dpo.weight_decay",),
    "loss_type": ("dpo.loss",),
    **dict.fromkeys(
        ("validation", "validation_split", "val_size", "test_size", "eval_dataset", "eval_steps"),
        ("dpo.held_out",),
    ),
    **dict.fromkeys(
        ("max_length", "max_len", "max_tokens", "max_seq_length"), ("generation.max_new_tokens",)
    ),
    "temp": ("generation.temperature",),
    **dict.fromkeys(("wandb", "report_to", "logger"), ("tracker",)),
    **dict.fromkeys(("wandb_project", "project_name"), ("tracker.project",)),
    **dict.fromkeys(("run_name", "exp_name", "experiment_name"), ("name",)),
    **dict.fromkeys(("output_dir", "out", "out_dir", "save_dir", "log_dir"), ("machine.runs",)),
    "gpu": ("machine.device",),
    **dict.fromkeys(
        ("gpus", "num_gpus", "n_gpus", "num_processes", "nproc_per_node", "workers"),
        ("machine.processes",),
    ),
    **dict.fromkeys(("fp16", "bf16", "precision", "torch_dtype"), ("machine.dtype",)),
    **dict.fromkeys(("deepspeed", "fsdp"), ("machine.accelerate",)),
    **dict.fromkeys(("load_in_4bit", "quantize", "qlora"), ("model.quantization",)),
    **dict.fromkeys(
        ("model_path", "model_name", "model_name_or_path", "pretrained", "checkpoint"),
        ("model.path",),
    ),
    **dict.fromkeys(("dataset", "data_path", "dataset_path", "train_file"), ("data.path", "data")),
    **dict.fromkeys(("num_samples", "n_samples", "limit", "max_samples", "n"), ("data.samples",)),
    **dict.fromkeys(("image_dir", "image_root", "image_folder"), ("data.image_folder",)),
    **dict.fromkeys(("random_seed", "rng_seed"), ("seed",)),
    **dict.fromkeys(("eval", "tasks", "benchmarks"), ("benchmark",)),
    **dict.fromkeys(("augmentation", "augmentations", "augs", "view", "views"), ("aug",)),
    **dict.fromkeys(("preset", "recipe"), ("experiment",)),
    "dpo": ("sigmoid",),
    **dict.fromkeys(("off", "no", "false", "disabled"), ("none",)),
    **dict.fromkeys(("gpt4", "gpt-4", "chatgpt"), ("openai",)),
    **dict.fromkeys(("tensorboard", "local"), ("trackio",)),
    **dict.fromkeys(("json", "csv"), ("jsonl",)),
    **dict.fromkeys(("images", "imagefolder", "pictures"), ("folder",)),
}
"""A word in small letters -> names of ours, the likeliest first: fields with their group, or values
(of a loss, of a config group)."""


def ours(word: str, known: set[str]) -> list[str]:
    """Those of ``known`` that ``word`` stands for elsewhere. A field may be known by its last
    part."""
    found = (
        next((form for form in (name, name.rpartition(".")[2]) if form in known), None)
        for name in SYNONYMS.get(word.lower(), ())
    )
    return list(dict.fromkeys(name for name in found if name))
