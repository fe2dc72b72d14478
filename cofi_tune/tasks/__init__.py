"""The data sets: one file each; its name is the name on the command line, in MLflow and in reports.

To add one, write `<name>.py` here: a docstring that is its card, and `TASK = Task(...)`.
"""

from cofi_tune.data.catalogue import load, names
from cofi_tune.data.task import Rows, Task, TsvLayout

__all__ = ["Rows", "Task", "TsvLayout", "load", "names"]
