"""Series of a run, read off its records."""

from collections.abc import Iterable

from kamerton.tracking import names
from kamerton.tracking.metrics_file import Record

Series = tuple[list[float], list[float]]  # steps and values


def read_curves(records: Iterable[Record]) -> dict[str, Series]:
    """Every series of some records as (steps, values), but what the machine did."""
    curves: dict[str, Series] = {}
    for record in records:
        if record.kind != "metrics" or record.step is None:
            continue
        for name, value in record.values.items():
            if not name.startswith(names.SYSTEM):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(record.step))
                values.append(value)
    return curves
