"""A self-contained HTML document: one style, readable at the width of a phone."""

import html
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light; background: #fff; color: #1a1a1a }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.9rem; overflow-wrap: normal }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th { white-space: normal; vertical-align: bottom }
th:first-child, td:first-child, .text { text-align: left }
.pairs td.text { white-space: normal }
tr.wrong { background: #fdf1e7 }
figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto }
img { image-rendering: pixelated; object-fit: contain; vertical-align: middle }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem;
  list-style: none; padding: 0; font-size: 0.8rem; line-height: 1.35 }
.gallery img, .gallery span { display: block } .gallery img { margin-bottom: 0.3rem }
.agrees { color: #00664a } .differs { color: #a34700 }
""".strip()


def document(title: str, parts: Sequence[str]) -> str:
    """An HTML document.

    Args:
      title: plain text, of the window and the first heading.
      parts: what follows, as HTML.
    """
    title = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
