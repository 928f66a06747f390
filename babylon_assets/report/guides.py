"""The pages on incidents as HTML within the report: their Markdown rendered, any HTML in it escaped."""

from __future__ import annotations

from markupsafe import Markup

from babylon_assets.domain.display_text import neutralize

#: A guide's title stands below the report's heading, which is of the second level.
_LEVELS_DOWN = 2


def render_guide(text: str) -> Markup:
    """A page of docs/incidents as HTML: headings, code, lists; no images and no links."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).disable(["image", "link", "autolink"])
    tokens = reader.parse(neutralize(text))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + _LEVELS_DOWN)}"
    return Markup(reader.renderer.render(tokens, reader.options, {}))
