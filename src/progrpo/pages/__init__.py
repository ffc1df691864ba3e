"""The report page: ``write_page`` turns run folders into one HTML file that needs no network.

The data flow, one module a step: ``collect`` reads run folders, ``summary`` and ``responses`` turn them into plain
values, ``plots`` into figures, ``page`` renders. Plotly and Jinja2 load when a page is written, not before.
"""

from progrpo.pages.page import summary_text, write_page

__all__ = ["summary_text", "write_page"]
