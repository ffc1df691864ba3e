"""``progrpo inspect``: rollouts that a run left behind, looked at before collapse hurts.

The data flow, one module a step: ``folders`` finds the files, ``files`` streams parquet, JSON lines and CSV (``traces``
knows verifiers' episodes, ``lists`` rows of a whole group), ``columns`` says which column holds what, ``table`` turns
responses into rows of numbers, ``score`` computes log-probs that are missing, ``collapse`` and ``what_if`` measure,
``inspect`` puts them together with the ``notes`` on what was assumed, ``summary`` and ``page`` show it.
"""

from progrpo.inspection.inspect import Inspection, Options, inspect, write_corrections
from progrpo.inspection.summary import print_summary
from progrpo.pages.inspection import write_page

__all__ = ["Inspection", "Options", "inspect", "print_summary", "write_corrections", "write_page"]
