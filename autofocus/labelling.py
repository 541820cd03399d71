"""Labels of the z-stacks taken on this instrument: by a person or by teachers."""

from __future__ import annotations

from autofocus.stack_store import StackLabel, StackRecord, StackStore
from autofocus.training.default_head import SIGMA_DOF
from autofocus.training.labels import Judgement, by_teachers
from autofocus.training.stack_index import IndexedStack, Plane


def indexed(store: StackStore, record: StackRecord) -> IndexedStack:
    """A complete stack as training sees it."""
    path = store.images(record.stack_id)
    planes = tuple(Plane(path, record.stack_id, z, page) for page, z in enumerate(record.z_um))
    return IndexedStack(record.stack_id, planes, "metadata")


def label_by_person(
    store: StackStore, stack_id: str, *, z_um: float
) -> tuple[StackRecord, Judgement]:
    """Label a stack with what a person saw.

    Raises
    ------
    StackNotFound, RequestError
        When there is no such stack, or z is not within it.
    """
    judgement = Judgement(stack_id, z_um, "chosen by a person", {})
    return store.put_label(stack_id, StackLabel(z_um, "person", judgement.reason)), judgement


def label_by_teachers(store: StackStore, stack_id: str) -> tuple[StackRecord, Judgement]:
    """Label a stack where the classical measures agree; else leave it as it is.

    Raises
    ------
    StackNotFound
        When there is no such stack.
    """
    record = store.complete(stack_id)
    judgement = by_teachers(indexed(store, record), sigma_um=SIGMA_DOF * record.dof_um)
    if judgement.z_um is None:
        return record, judgement
    label = StackLabel(judgement.z_um, "teacher", judgement.reason, judgement.agreement)
    return store.put_label(stack_id, label), judgement
