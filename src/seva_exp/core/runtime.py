"""The process that loads torch: settled once, before the first heavy import."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import warnings

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Settings of torch's allocator on a GPU, by today's name (from torch 2.9 on) and the one before,
which later versions take too, some with a warning where it stands alone. Generation's buffers
and training's batches change their size all the time: in segments that cannot grow, what is freed
is too small for what comes next, and lies there until memory runs out."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def settle() -> None:
    """Quiet libraries (the run prints for itself), threads that do not spin, memory kept."""
    for name, value in (
        ("OMP_WAIT_POLICY", "PASSIVE"),  # spinning threads starve a second job on the same cores
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("DATASETS_VERBOSITY", "error"),
        ("TRL_EXPERIMENTAL_SILENCE", "1"),
    ):
        os.environ.setdefault(name, value)
    if sys.platform.startswith("linux") and not any(name in os.environ for name in ALLOCATOR):
        os.environ.update(dict.fromkeys(ALLOCATOR, "expandable_segments:True"))
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    keep_memory()


def end_with_parent(code: int) -> None:
    """From now on this process ends, with this exit code, when the one that started it does: it
    holds the other end of standard input, and writes no more."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held at the end
            continue
        os._exit(code)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def keep_memory() -> None:
    """Tell glibc to keep freed memory: by default each large activation goes back to the system and
    is zeroed again at the next step, which costs more than a small model's arithmetic on a CPU."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return
    mallopt(_M_MMAP_THRESHOLD, 2**31 - 1)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 2**28)


def hush() -> None:
    """Switch off the libraries' own progress bars; they are told only after their import."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
