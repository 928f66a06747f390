"""What a group of settings is: a frozen pydantic model, each field read from a variable of its own."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, MultipleOf
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from babylon_assets.config.values import TextForm

#: How every group, and the settings as a whole, check what they are given.
RULES = ConfigDict(
    frozen=True,
    extra="forbid",
    validate_default=True,
    validate_by_name=True,
    validate_by_alias=True,
    allow_inf_nan=False,
    hide_input_in_errors=True,
)


class Group(BaseModel):
    """Settings of one subsystem. Built by `Settings`; code may build one directly, the same checks apply.

    Raises:
        pydantic.ValidationError: a value is not allowed.
    """

    model_config = RULES


def variable(name: str, default: Any, doc: str, *, secret: bool = False) -> Any:
    """A field that is read from the environment variable `name`; `doc` is its sentence in the documentation.

    A secret is a field that `repr` leaves out.
    """
    return Field(default, validation_alias=name, description=doc, repr=not secret)


def variable_name(field: FieldInfo) -> str:
    assert isinstance(field.validation_alias, str)
    return field.validation_alias


def is_secret(field: FieldInfo) -> bool:
    return not field.repr


def allowed_values(field: FieldInfo) -> str:
    """What may be set, in words, from the field's own type."""
    bare, marks = _bare_type(field)
    if form := _text_form(marks):
        return form.allowed
    if get_origin(bare) is Literal:
        return "one of " + ", ".join(get_args(bare))
    if bare is bool:
        return "true or false"
    return _range_in_words(bare, marks) if bare in (int, float) else "any text"


def write_value(field: FieldInfo, value: Any) -> str:
    """The text that is read back as `value`; empty for what is not set."""
    form = _text_form(_bare_type(field)[1])
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).lower()
    return form.write(value) if form else str(value)


def _bare_type(field: FieldInfo) -> tuple[Any, list[Any]]:
    """The field's type without None and without its marks, and the marks."""
    bare, marks = field.annotation, list(field.metadata)
    while get_origin(bare) in (Annotated, Union, types.UnionType):
        if get_origin(bare) is Annotated:
            bare, *more = get_args(bare)
            marks += more
        else:
            (bare,) = (member for member in get_args(bare) if member is not type(None))
    return bare, list(_single_marks(marks))


def _single_marks(marks: list[Any]) -> Iterator[Any]:
    for mark in marks:
        yield from mark if isinstance(mark, Interval) else (mark,)


def _text_form(marks: list[Any]) -> TextForm | None:
    return next((mark for mark in marks if isinstance(mark, TextForm)), None)


def _range_in_words(kind: type, marks: list[Any]) -> str:
    bounds = {type(mark): mark for mark in marks}
    if multiple := bounds.get(MultipleOf):
        return f"a multiple of {multiple.multiple_of}"
    words = "a whole number" if kind is int else "a number"
    if least := bounds.get(Ge):
        words += f" from {least.ge:g}" if kind is float else f" from {least.ge}"
    if above := bounds.get(Gt):
        words += f" above {above.gt:g}"
    if most := bounds.get(Le):
        words += f" to {most.le:g}" if kind is float else f" to {most.le}"
    return words
