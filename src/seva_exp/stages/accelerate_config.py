"""What ``accelerate launch --config_file`` would tell the processes, told to ours: FSDP2, ZeRO.

accelerate reads the file itself and makes the environment; nothing of it is known here but what is
refused.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seva_exp.core.errors import InputError, suggest
from seva_exp.core.machine import Machine, resolve_device, resolve_dtype
from seva_exp.core.printable import error_text

FOLDER = Path(__file__).parent / "accelerate"
"""The configs that come with the package, by name."""
OURS = {"OMP_NUM_THREADS", "PYTHONPATH"}
"""What accelerate would set too, and ``processes`` sets better."""
PRECISION = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "no"}


def config_file(name: str) -> Path:
    """The file that ``machine.accelerate`` means. Raises InputError where there is none."""
    packaged = {file.stem: file for file in FOLDER.glob("*.yaml")}
    file = packaged.get(name) or Path(name).expanduser()
    if not file.is_file():
        raise InputError(
            f"machine.accelerate={name}: neither a file nor a name.{suggest(name, packaged)}"
        )
    return file.absolute()


def launch_environment(machine: Machine) -> dict[str, str]:
    """The variables that accelerate's launcher sets for this config; none where none is given.

    Number of processes and number format are the machine's, as if given on accelerate's command
    line. Raises InputError where the config cannot be read or cannot work here.
    """
    if machine.accelerate is None:
        return {}
    field = f"machine.accelerate={machine.accelerate}"
    file = config_file(machine.accelerate)
    if machine.processes == 1:
        raise InputError(f"{field}: it is for several processes. Set machine.processes=N too.")
    device = resolve_device(machine)
    if device.type != "cuda":
        raise InputError(
            f"{field}: on machine.device={device} accelerate would leave it aside without a word. "
            "Take GPUs, or machine.accelerate=null."
        )
    try:
        args, defaults = _read(file, machine)
        environment = _environment(field, args, defaults, str(resolve_dtype(machine, device)))
        _check_fsdp(field, args, environment)
    except InputError:
        raise
    except Exception as error:  # whatever accelerate and YAML say of a file
        why = error_text(error)
        raise InputError(f"{field}: accelerate cannot read it: {why}") from error
    return environment


def _read(file: Path, machine: Machine) -> tuple[Any, Any]:
    """The launcher's arguments with the file's values in them, and the file."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    words = ["--config_file", str(file), "--num_processes", str(machine.processes)]
    words += ["--mixed_precision", "no", "--main_process_port", "0", "worker"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    args.fsdp_cpu_ram_efficient_loading = False  # our processes load the model each for itself
    return args, defaults


def _environment(field: str, args: Any, defaults: Any, dtype: str) -> dict[str, str]:
    """What accelerate's launcher adds to the environment, where it is a launch that we can do."""
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    if not (args.use_deepspeed or args.use_fsdp or args.multi_gpu):
        raise InputError(
            f"{field}: its distributed_type is none that trains here. Take FSDP, DEEPSPEED or "
            "MULTI_GPU."
        )
    if defaults.num_machines > 1:
        raise InputError(f"{field}: num_machines={defaults.num_machines}, and we train on one.")
    args.num_machines = 1
    if args.use_deepspeed:
        _check_deepspeed(field, args)
        args.mixed_precision = PRECISION[dtype]
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        found = prepare_deepspeed_cmd_env(args)[1]
    else:
        found = prepare_multi_gpu_env(args)
    return {k: v for k, v in found.items() if os.environ.get(k) != v and k not in OURS}


def _check_deepspeed(field: str, args: Any) -> None:
    if find_spec("deepspeed") is None:
        raise InputError(f"{field}: DeepSpeed is not installed. pip install deepspeed.")
    if args.deepspeed_config_file:
        raise InputError(
            f"{field}: deepspeed_config_file is not read. Write its settings into deepspeed_config."
        )


def _check_fsdp(field: str, args: Any, environment: dict[str, str]) -> None:
    """What accelerate's plugin makes of the environment must be what training was tested with."""
    from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment

    if not args.use_fsdp:
        return
    if int(args.fsdp_version) != 2:
        raise InputError(f"{field}: fsdp_version must be 2.")
    with patch_environment(**environment):
        plugin = FullyShardedDataParallelPlugin()
    if plugin.activation_checkpointing:
        raise InputError(
            f"{field}: fsdp_activation_checkpointing must be false. Set "
            "machine.gradient_checkpointing=true in its place."
        )
    if plugin.ignored_modules:
        raise InputError(f"{field}: fsdp_ignored_modules is ours to choose. Take it out.")
