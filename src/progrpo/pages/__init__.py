"""The pages: ``write_page`` turns run folders or evaluation folders into one HTML file that needs no network.

The data flow: ``collect`` reads the folders; ``measures``, ``summary`` and ``confidence`` say what the numbers support;
``responses`` and ``problems`` prepare the responses to read; ``plots`` draws with the figure builder, ``figures``;
``page`` and ``inspection`` put a page together. Plotly and Jinja2 are loaded when a page is written, not before.
"""

from progrpo.pages.page import summary_text, write_page

__all__ = ["summary_text", "write_page"]
