"""Where and how a run is computed. Nothing here changes a key: it never enters a hash."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from seva_exp.core import gpus
from seva_exp.core.errors import InputError
from seva_exp.core.spec import Spec

if TYPE_CHECKING:
    import torch

Graphs = Literal["auto", "on", "off"]


Url = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")]
Urls = Annotated[
    Annotated[Url, Tag("")] | Annotated[tuple[Url, ...], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list | tuple) else ""),
]
"""One address, or several; the tags tell which is wrong."""


class Server(Spec):
    """The OpenAI-compatible endpoint that ``generation=server`` asks, and how."""

    field: ClassVar[str] = "machine.server"
    """Where it stands in the config."""
    url: Urls | None = None
    """Base address, mostly ending in /v1, e.g. http://127.0.0.1:8000/v1; no user, no password. Or
    several, of servers that hold the same model: each question goes to one of those that answer."""
    concurrency: int = Field(64, ge=1)
    """Questions under way at once; one that answers a question at a time wants few of them."""
    timeout_seconds: float = Field(600.0, gt=0)
    """Longest wait for one reply, the server's queue included; then it is asked again."""
    retries: int = Field(8, ge=0)
    """How often a question is asked again after a fault that may pass (HTTP 408, 409, 429 and 5xx,
    a lost connection, no reply in time); 8 take about two minutes."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the API key; none: no key is sent."""

    @property
    def endpoints(self) -> tuple[Self, ...]:
        """This server, an address each."""
        urls = (self.url,) if isinstance(self.url, str) else dict.fromkeys(self.url or ())
        return tuple(self.model_copy(update={"url": url}) for url in urls)

    def api_key(self) -> str | None:
        """The key. Raises InputError when the variable is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if key.isascii() and key.isprintable() and key:
            return key
        fault = "holds what no key is made of" if key else "is not set"
        raise InputError(
            f"{self.field}.api_key_env={self.api_key_env}: this environment variable {fault}. "
            "Put the server's API key into it, or set api_key_env=null if it wants none."
        )


class JudgeServer(Server):
    """The OpenAI-compatible endpoint that a judge answers at, how it is asked, what it costs."""

    field: ClassVar[str] = "machine.judge"
    concurrency: int = Field(16, ge=1)
    """Questions under way at once."""
    timeout_seconds: float = Field(120.0, gt=0)
    """Longest wait for one reply; then it is asked again."""
    prompt_price: float | None = Field(None, ge=0)
    """Price of a million tokens that are sent, for the cost that a plan tells; none: untold."""
    reply_price: float | None = Field(None, ge=0)
    """Price of a million tokens that come back."""

    def cost(self, prompt_tokens: float, reply_tokens: float) -> float | None:
        """The price of so many tokens; None where a price is untold."""
        if self.prompt_price is None or self.reply_price is None:
            return None
        return (prompt_tokens * self.prompt_price + reply_tokens * self.reply_price) / 1e6


class RayCluster(Spec):
    """The Ray cluster of ``machine.cluster=ray``, and what a worker gets of it."""

    address: str | None = Field(None, pattern=r"^(auto|[^\s/:]+:\d{1,5})$")
    """``HOST:PORT`` of the cluster's first node, or ``auto`` on one of its nodes; none: Ray is
    started on this machine, for this run."""
    workers: int | None = Field(None, ge=1)
    """Actors that work at once, each with a model of its own; none: as many as there are GPUs, or
    without GPUs CPUs, for."""
    gpus: float | None = Field(None, ge=0, le=1)
    """GPUs of a worker (0.5: two share one); none: one, where the cluster has any."""
    cpus: int = Field(1, ge=1)
    """CPUs of a worker, and its threads."""


class Vllm(Spec):
    """How ``generation=vllm`` runs its own vLLM: what is asked of it stands in ``generation``."""

    python: str | None = Field(None, min_length=1)
    """The Python of an environment with vLLM. None: of the one that ``python -m seva_exp.vllm
    install`` made, in $SEVA_EXP_VLLM or the user's cache."""
    gpu_memory: float = Field(0.85, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes for weights, keys and values."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one model's weights; ``machine.processes`` is the number of such models."""
    context: int | None = Field(None, ge=1)
    """Tokens of question and answer for which vLLM makes room, where the model's own context is
    larger than memory takes. A question that needs more ends the stage. None: the model's own."""
    start_seconds: float = Field(900.0, gt=0)
    """Longest wait until vLLM answers: it reads the weights first, and compiles on a GPU."""
    restarts: int = Field(5, ge=0)
    """How often vLLM is started again when it has died."""


class Machine(Spec):
    """Devices, batch sizes and folders."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """``auto`` takes CUDA, then MPS, then the CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto``: bfloat16 on a GPU that has it, float16 on one that has not, else float32."""
    batch_size: int = Field(64, ge=1)
    """Most rows (questions) generated at once."""
    generation_tokens: int | None = Field(None, ge=1)
    """Tokens of which keys and values are held at once in generation: a picture's prefix counts
    once, a row with what it has of its own. None: as many as the device's free memory takes. When
    memory runs out it is halved and the work goes on."""
    cuda_graphs: Graphs = "auto"
    """``auto``: on a CUDA device the steps of generation are recorded as CUDA graphs, and played
    again once a recording's first play has given what the step itself gives; where that cannot be,
    one line says so and they are computed as ever. ``on``: that is an error. ``off``: none is
    recorded."""
    train_batch_size: int = Field(16, ge=1)
    """Preferences (or instructions) per forward pass, each a row for the chosen answer, for every
    rejected one and, with the loss term ``image``, for every view's picture. ``batch_size`` of
    ``dpo`` and ``sft`` is reached by gradient accumulation."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    checkpoint_minutes: float | None = Field(10.0, ge=0)
    """Training saves a checkpoint after the first step that ends this many minutes after the last
    one (0: after each step); the same command resumes from it after a kill. None: no checkpoints.
    """
    processes: int = Field(1, ge=1)
    """Processes that share the work of ``answers``, ``reference`` and ``evaluate``, and train
    together (DDP): one GPU each, or all on the CPU; everything else runs in one. The rows of an
    optimizer step are dealt to them, so a step stays what it is, and results do not
    change. N need not divide ``batch_size``, but those that get fewer rows wait for the others."""
    nodes: int | None = Field(None, ge=1)
    """Processes of this command that ``srun``, ``torchrun`` or ``accelerate launch`` started,
    mostly one on each node: they do one run together, and each brings ``processes``. None: as many
    as the launcher's variables tell; 1: each does a run of its own."""
    cluster: Literal["ray"] | None = None
    """``ray``: actors of Ray answer, evaluate and score the reference, in place of processes; this
    process trains. None: no cluster."""
    ray: RayCluster = RayCluster()
    """The cluster of ``cluster=ray``."""
    accelerate: str | None = None
    """How processes that train share out weights, gradients and optimizer: ``fsdp``, ``zero2``,
    ``zero3``, or a config file of ``accelerate launch``. None: they do not (DDP)."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory in GiB of the device (of each GPU) that a run is planned for. None: of the one that is
    here. What does not fit is refused before weights are read."""
    fit: bool = False
    """Lower ``batch_size`` and ``train_batch_size``, and set ``gradient_checkpointing``, as far as
    the device's memory asks for it (``machine=auto``)."""
    vision_cache: float | None = Field(None, ge=0, le=1_000_000)
    """Main memory in GiB for pictures' features, which ``reference`` and ``align`` compute once;
    what does not fit is computed again each time. Training processes share it evenly. None: a
    quarter of what is free when the stage begins (LLaVA-1.5-7B: 4.7 MB a picture)."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch; none leaves torch's own choice."""
    server: Server = Server()
    """The server that answers with ``generation=server``."""
    vllm: Vllm = Vllm()
    """The vLLM that ``generation=vllm`` starts."""
    judge: JudgeServer = JudgeServer()
    """The server at which the judge answers."""
    store: str | None = None
    """Folder of the artifacts; none means $SEVA_EXP_STORE, else ``<runs>/store``."""
    runs: str = "runs"
    """Folder in which each run makes its own."""
    progress: Literal["auto", "bar", "lines", "off"] = "auto"
    """``auto``: a bar on a terminal, a line now and then in a log file."""

    @field_validator("cuda_graphs", mode="before")
    @classmethod
    def _truth_values_of_before(cls, value: Any) -> Any:
        """``true`` and ``false``, from before there was ``on``, are ``auto`` and ``off``."""
        return {True: "auto", False: "off"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _each_process_has_a_device(self) -> Machine:
        if self.processes > 1 and (self.device == "mps" or ":" in self.device):
            raise ValueError(
                f"processes={self.processes}: each process needs a device of its own, and "
                f"device={self.device} is one. Take device=cuda or cpu, or processes=1"
            )
        return self

    @model_validator(mode="after")
    def _a_cluster_gives_the_devices(self) -> Machine:
        if self.cluster and (self.device == "mps" or ":" in self.device):
            raise ValueError(
                f"cluster={self.cluster}: each worker is given its GPU, and device={self.device} "
                "is one of this machine. Take device=auto, cuda or cpu"
            )
        return self

    def store_root(self) -> Path:
        """The store's folder, from the field, the environment or the default."""
        root = self.store or os.environ.get("SEVA_EXP_STORE")
        return Path(root).expanduser().absolute() if root else self.runs_root() / "store"

    def runs_root(self) -> Path:
        """The folder of the runs' folders."""
        return Path(self.runs).expanduser().absolute()


_ABSENT = "machine.device={}: not on this machine. Use 'auto'."


def resolve_device(machine: Machine) -> torch.device:
    """The torch device that ``machine.device`` means here. Raises InputError when it is absent."""
    import torch

    wanted = machine.device
    if wanted == "auto":
        if torch.cuda.is_available():
            wanted = "cuda"
        elif torch.backends.mps.is_available():
            wanted = "mps"
        else:
            wanted = "cpu"
    device = torch.device(wanted)
    missing = (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(_ABSENT.format(machine.device))
    return device


def absent_device(machine: Machine) -> str:
    """Why ``machine.device`` cannot be had here, as far as that can be told without torch: by the
    system and, on Linux, by its device files (NVIDIA, AMD, WSL, Jetson) and CUDA_VISIBLE_DEVICES.
    Empty where it may be there. Where torch is loaded, it is asked."""
    if "torch" in sys.modules and machine.device != "auto":
        try:
            resolve_device(machine)
        except InputError as error:
            return str(error)
        return ""
    kind, _, number = machine.device.partition(":")
    mac, linux = sys.platform == "darwin", sys.platform.startswith("linux")
    gone = {
        "mps": not mac,
        "cuda": mac or (linux and not has_gpu(int(number or 0))),
    }
    return _ABSENT.format(machine.device) if gone.get(kind) else ""


def absent_cluster(machine: Machine) -> str:
    """Why ``machine.cluster`` cannot be had here; empty where it may be there."""
    if machine.cluster is None or find_spec("ray") is not None:
        return ""
    return "machine.cluster=ray: Ray is not installed here. pip install 'seva_exp[ray]'"


def has_gpu(number: int = 0) -> bool:
    """Whether there may be a GPU of this number, by CUDA_VISIBLE_DEVICES and device files."""
    if gpus.VISIBLE in os.environ and number >= len(gpus.seen(os.environ)):
        return False
    return any(any(Path("/dev").glob(name)) for name in ("nvidia*", "kfd", "dxg", "nvhost*"))


def resolve_dtype(machine: Machine, device: torch.device) -> torch.dtype:
    """The number format that fits: what ``machine.dtype`` says, or the device's best."""
    import torch

    if machine.dtype != "auto":
        return getattr(torch, machine.dtype)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)  # T4 and V100 emulate it
        return torch.bfloat16 if native else torch.float16
    return torch.float32
