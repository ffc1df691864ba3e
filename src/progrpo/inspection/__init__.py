"""``progrpo inspect``: rollouts that a run left behind, inspected before collapse hurts.

The data flow, one module a step: ``folders`` finds the files, and ``files`` streams them (``traces`` reads the episodes
of verifiers, ``values`` the cells). ``columns`` says which column holds what. ``table`` turns responses into rows of
numbers, with the confidences and verdicts of ``score``. ``collapse`` and ``what_if`` measure. ``inspect`` puts
everything together, ``summary`` writes the sentences, and :mod:`progrpo.pages.inspection` draws the page.
"""

from progrpo.inspection.inspect import Inspection, Options, inspect, write_corrections
from progrpo.inspection.summary import print_summary

__all__ = ["Inspection", "Options", "inspect", "print_summary", "write_corrections"]
