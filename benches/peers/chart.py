"""Bars as SVG, readable on light and dark pages, and by screen readers."""

from html import escape

WIDTH, ROW, TOP, LEFT, RIGHT = 780, 26, 64, 188, 96
STYLE = """
    text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1a2022; }
    .back { fill: #ffffff; }
    .title { font-weight: 600; font-size: 15px; }
    .soft { fill: #566063; font-size: 12px; }
    .bar { fill: #a9b5b3; }
    .ours { fill: #278f86; }
    .name-ours { font-weight: 600; }
    .spread { stroke: #1a2022; stroke-width: 1.5; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6eaea; }
      .back { fill: #14191b; }
      .soft { fill: #9eaaac; }
      .bar { fill: #5b6769; }
      .ours { fill: #3faea3; }
      .spread { stroke: #e6eaea; }
    }
"""


def svg(title, below, bars):
    """`bars` are names with median, least and most; the shortest comes first."""
    bars = sorted(bars, key=lambda bar: bar[1][0])
    scale = (WIDTH - LEFT - RIGHT) / max(max(values) for _, values in bars)
    height = TOP + ROW * len(bars) + 12
    told = "; ".join(f"{name} {values[0]:.1f}" for name, values in bars)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           'role="img" aria-labelledby="title desc">',
           f'  <title id="title">{escape(title)}</title>',
           f'  <desc id="desc">Bars, less is better. {escape(told)}. The line on a bar goes from the least to the most of its rounds. '
           f'{escape(below)}.</desc>',
           f"  <style>{STYLE}  </style>",
           # Its own background: the page around it may be light where the system is dark.
           f'  <rect class="back" width="{WIDTH}" height="{height}" rx="6"/>',
           f'  <text class="title" x="8" y="24">{escape(title)}</text>',
           f'  <text class="soft" x="8" y="44">Less is better; the line goes from the least to the most. {escape(below)}.</text>']
    for number, (name, values) in enumerate(bars):
        y, ours = TOP + number * ROW, name.startswith("h3cast")
        out.append(f'  <text class="{"name-ours" if ours else "name"}" x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        out.append(f'  <rect class="{"ours" if ours else "bar"}" x="{LEFT}" y="{y + 1}" width="{values[0] * scale:.1f}" height="18" rx="2"/>')
        if len(values) == 3:
            out.append(f'  <line class="spread" x1="{LEFT + values[1] * scale:.1f}" x2="{LEFT + values[2] * scale:.1f}" '
                       f'y1="{y + 10}" y2="{y + 10}"/>')
        out.append(f'  <text x="{LEFT + max(values) * scale + 8:.1f}" y="{y + 15}">{values[0]:.1f}</text>')
    return "\n".join([*out, "</svg>", ""])
