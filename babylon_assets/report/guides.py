"""The pages on incidents as HTML within the report: their Markdown rendered, any HTML in it escaped."""

from __future__ import annotations

from markupsafe import Markup

from babylon_assets.domain.display_text import neutralize

#: A guide's title stands below the report's heading, which is of the second level.
_LEVELS_DOWN = 2


def render_guide(text: str) -> Markup:
    """A page of docs/incidents as HTML."""
    return render_markdown(text, _LEVELS_DOWN)


def render_markdown(text: str, levels_down: int) -> Markup:
    """Markdown as HTML: headings so many levels further down, code, lists, tables; no images and no links."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    tokens = reader.parse(neutralize(text))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + levels_down)}"
    return Markup(reader.renderer.render(tokens, reader.options, {}))
