"""Extension of the API pages' reader: Sphinx markup of docstrings as Markdown.

Docstrings refer with ``:func:`mmdet_ext.x.y` `` and write formulas as ``:math:``, which editors and
Sphinx understand; mkdocs would show them as they stand.
"""

from __future__ import annotations

import re
from textwrap import indent
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r':(?:func|class|meth|mod|attr|data):`~?([^`]+)`')
INLINE = re.compile(r':math:`([^`]+)`')
BLOCK = re.compile(r'^( *)\.\. math::(.*\n(?:\1 +.*\n|\s*\n)*)', re.MULTILINE)
DOCTEST = re.compile(r'^( *)(>>> .*\n(?:\1(?! *$).+\n)*)', re.MULTILINE)
LITERAL = re.compile(r'::(?=\n\n)')


class Roles(Extension):
    """Extension that rewrites the docstring of every object."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Turn roles and doctests into code, formulas into ``$...$``, ``::`` into a colon.

    >>> as_markdown('See :func:`mmdet_ext.f`, with :math:`x^2`.')
    'See `mmdet_ext.f`, with $x^2$.'
    """
    text = BLOCK.sub(_display, f'{text}\n')
    text = DOCTEST.sub(r'\1```pycon\n\1\2\1```\n', text).rstrip('\n')
    return LITERAL.sub(':', INLINE.sub(r'$\1$', ROLE.sub(r'`\1`', text)))


def _display(found: re.Match[str]) -> str:
    lines = [line.strip() for line in found[2].splitlines() if line.strip()]
    return indent('\n'.join(['$$', *lines, '$$']), found[1]) + '\n\n'
