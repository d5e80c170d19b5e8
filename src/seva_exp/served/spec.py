"""Specs of a model that a server holds, whether it answers or judges. No heavy import."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from seva_exp.core.spec import Spec

if TYPE_CHECKING:
    from seva_exp.core.machine import Server


class ServedModel(Spec):
    """A spec with a field for the name under which the server knows its model; none: asked from the
    server, which then has to serve exactly one."""

    group: ClassVar[str]
    """The config group whose ``server`` is such a spec."""
    name_field: ClassVar[str]
    """The field that holds the model's name."""

    @property
    def served_name(self) -> str | None:
        """The model's name, if it is known yet."""
        name: str | None = getattr(self, self.name_field)
        return name

    def lacking(self, server: Server) -> list[str]:
        """What the machine must still be given before work can start, each with its field."""
        if server.url:
            return []
        return [
            f"{server.field}.url: must be set with {self.group}=server "
            f"({server.field}.url=http://127.0.0.1:8000/v1)."
        ]

    def unresolved(self) -> list[str]:
        """The fields that the server will be asked for when work starts, for a plan that asks
        none."""
        if self.served_name:
            return []
        field = f"{self.group}.{self.name_field}"
        return [f"{field}: not set: the server will be asked which model it serves."]

    def resolved(self, server: Server) -> Self:
        """With the model's name. Raises InputError where the server does not tell one."""
        from seva_exp.served.endpoint import only_model

        if self.served_name:
            return self
        name = only_model(server, f"{self.group}.{self.name_field}")
        return self.model_copy(update={self.name_field: name})
