"""Draw docs/architecture.svg: what the models give each other. `python docs/architecture.py` writes it again."""

from pathlib import Path

from diffae_core.base.checkpoints import atomic_write

WIDTH, HEIGHT = 900, 330
STYLE = """
.page { fill: #fff }
text { font: 15px system-ui, sans-serif; fill: #222; text-anchor: middle }
.small { font-size: 12px; fill: #555 }
.model { fill: #dbe8fb; stroke: #3465a4 }
.value { fill: #fdf3d8; stroke: #b08a2e }
line { stroke: #555; stroke-width: 1.5; marker-end: url(#tip) }
#tip path { fill: #555 }
@media (prefers-color-scheme: dark) {
  .page { fill: #1f2229 } text { fill: #eee } .small { fill: #bbb }
  .model { fill: #22395c; stroke: #7aa7e8 } .value { fill: #4a3d17; stroke: #d8b552 }
  line { stroke: #bbb } #tip path { fill: #bbb }
}
"""
# (class, left, top, width, title, what stands under it)
BOXES = [
    ("value", 20, 40, 120, "digit", "1 x 28 x 28"),
    ("model", 190, 40, 130, "encoder", "SimpleAutoencoder"),
    ("value", 370, 40, 130, "latent", "256 numbers"),
    ("model", 550, 40, 150, "diffusion model", "DiffusionModel"),
    ("value", 750, 40, 130, "digit", "1 x 28 x 28"),
    ("value", 550, 150, 150, "noise x_T", "what is left open"),
    ("model", 370, 150, 130, "latent prior", "LatentPrior"),
    ("value", 190, 150, 130, "label", "which digit"),
    ("value", 370, 260, 130, "noise z_T", "whose handwriting"),
]
# (from x, from y, to x, to y)
ARROWS = [
    (140, 68, 188, 68),
    (320, 68, 368, 68),
    (500, 68, 548, 68),
    (700, 58, 748, 58),
    (750, 78, 702, 78),
    (610, 150, 610, 98),
    (640, 96, 640, 148),
    (320, 178, 368, 178),
    (420, 150, 420, 98),
    (450, 96, 450, 148),
    (420, 260, 420, 208),
    (450, 206, 450, 258),
]
# (middle, baseline, text)
NOTES = [
    (385, 128, "forwards"),
    (490, 128, "backwards"),
    (385, 238, "forwards"),
    (490, 238, "backwards"),
    (575, 128, "forwards"),
    (680, 128, "backwards"),
]


def box(kind: str, left: int, top: int, width: int, title: str, note: str) -> str:
    middle = left + width / 2
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="56" rx="8"/>'
        f'<text x="{middle}" y="{top + 24}">{title}</text>'
        f'<text class="small" x="{middle}" y="{top + 43}">{note}</text>'
    )


def drawing() -> str:
    shapes = [f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="12"/>', *(box(*one) for one in BOXES)]
    shapes += [f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>' for x1, y1, x2, y2 in ARROWS]
    shapes += [f'<text class="small" x="{x}" y="{y}">{note}</text>' for x, y, note in NOTES]
    tip = '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
    defs = f'<defs><style>{STYLE}</style>{tip}<path d="M0 0L10 5L0 10z"/></marker></defs>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    title = "<title>Encoder, latent prior and diffusion model</title>"
    return "\n".join([head, title, defs, *shapes, "</svg>", ""])


if __name__ == "__main__":
    with atomic_write(Path(__file__).with_suffix(".svg")) as temporary:
        temporary.write_text(drawing(), encoding="utf-8")
