"""A chat template is a program of whoever wrote the checkpoint: before it is used it is rendered
once in a process of its own, in bounded time and memory, by the sandbox that transformers uses."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache

from seva_exp.core.printable import flat

SECONDS, MEMORY = 10, 1 << 30
"""What a template may take to render one question, and to be compiled; bytes of address space."""
LONGEST = 1 << 20
"""Characters of a template, and of what it makes of one question."""
RENDER = """
import json, resource, sys
for limit, most in ((resource.RLIMIT_AS, {memory}), (resource.RLIMIT_CPU, {seconds})):
    try:
        resource.setrlimit(limit, (most, most))
    except (ValueError, OSError):  # a system that has no such bound, or a lower one
        pass
from datetime import datetime
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

class Generation(Extension):
    tags = {{"generation"}}
    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.Scope(body, lineno=line)

def refuse(message):
    raise TemplateError(message)

template = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
sandbox = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
)
sandbox.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
sandbox.globals["raise_exception"] = refuse
sandbox.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
content = [{{"type": "image"}}, {{"type": "text", "text": "?"}}]
messages = [{{"role": "user", "content": content}}]
try:
    made = sandbox.from_string(template).render(
        messages=messages, add_generation_prompt=True, tools=None, documents=None,
        bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
    )
    print("" if len(made) <= {longest} else "makes %d characters of one question" % len(made))
except SecurityError as error:
    print("reaches for what the sandbox forbids:", error)
except TemplateSyntaxError as error:
    print("is no template:", error)
except (MemoryError, OverflowError) as error:
    print("takes more than {megabytes} MB, or loops too often:", error)
except RecursionError:
    print("is nested too deep")
except Exception:
    print("")  # it may want what only the processor has, which asks it next
"""


@lru_cache(16)
def template_fault(template: str) -> str:
    """What is wrong with a chat template as a program ("" if nothing)."""
    if len(template) > LONGEST:
        return f"has {len(template)} characters"
    code = RENDER.format(seconds=SECONDS, memory=MEMORY, longest=LONGEST, megabytes=MEMORY >> 20)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            input=template.encode("utf-8", "surrogatepass"),
            capture_output=True,
            timeout=6 * SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"does not end within {SECONDS} s"
    if done.returncode < 0:
        return f"does not end within {SECONDS} s"
    if b"MemoryError" in done.stderr:
        return f"takes more than {MEMORY >> 20} MB"
    return flat(done.stdout.decode("utf-8", "replace"))
