"""Sections of settings: frozen, strict, and every mistake told at once in a sentence with the mend.

pydantic checks each value by itself, and stops before it compares values with each other as soon as
one of them is wrong. Who mends a file wants the whole list, so what compares values is a ``check``
of its own here, and those that the right values allow are made as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

S = TypeVar("S", bound="Section")
Check = Iterator[str]  # sentences, one for each mistake; none where all is well


class Mistakes(ValueError):
    """What is wrong between the values of one section, a sentence each."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("; ".join(self.sentences))


class Section(BaseModel):
    """A frozen group of settings; an unknown key or a value of another type is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def checks(self) -> tuple[Check, ...]:
        """What compares values with each other; a check ends at a value that is not there."""
        return ()

    @model_validator(mode="after")
    def _values_agree(self) -> Self:
        found = [sentence for check in self.checks() for sentence in check]
        if found:
            raise Mistakes(found)
        return self


def mistakes_in(
    values: Mapping[str, Any],
    kind: type[Section],
    error: ValidationError,
    tell: Callable[[Any], str],
) -> list[str]:
    """Every mistake in values that are no section of this kind, none twice.

    + error: what pydantic said of them
    + tell: makes a sentence of one error of pydantic's
    """
    found = [tell(one) for each in error.errors() for one in _one_by_one(each)]
    return list(dict.fromkeys([*found, *_disagreements(right_part(kind, values))]))


def _one_by_one(error: Any) -> Iterator[Any]:
    """An error of pydantic's for each sentence of a section's checks, any other as it is."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Mistakes):
        for sentence in cause.sentences:
            yield {**error, "ctx": {"error": sentence}}
    else:
        yield error


def right_part(kind: type[S], values: Mapping[str, Any]) -> S:
    """The section with those of its values alone that are right by themselves."""
    right: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name not in values:
            continue
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            if isinstance(values[name], Mapping):
                right[name] = right_part(annotation, values[name])
            continue
        strict: TypeAdapter[Any] = TypeAdapter(
            field.rebuild_annotation(), config=ConfigDict(strict=True)
        )
        with suppress(ValidationError):
            right[name] = strict.validate_python(values[name])
    # pydantic's plugin for mypy takes type[S] for type[Section] here.
    return cast(S, kind.model_construct(None, **right))


def _disagreements(section: Section) -> Iterator[str]:
    """Sentences of all checks, also in sections within; a check ends where it misses a value."""
    for name in type(section).model_fields:
        inner = getattr(section, name, None)
        if isinstance(inner, Section):
            yield from _disagreements(inner)
    for check in section.checks():
        try:
            yield from check
        except AttributeError:
            continue
