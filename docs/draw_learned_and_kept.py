"""The picture of README and of the first page: what the demo learned against what it kept.

`python docs/draw_learned_and_kept.py` draws it. A test holds its figures against studies/forgetting_budget.md.
"""

from pathlib import Path

PICTURE = Path(__file__).parent / "images" / "learned_and_kept.svg"
LEARNED = {"before": (15, 6, 26), "after": (46, 32, 61), "with the document": (72, 56, 84)}
KEPT = {"before": (87, 70, 95), "after": (87, 70, 95)}
"""Right answers in %, with 95 % interval over questions."""
COLOURS = {"before": "#9aa5b1", "after": "#2a6fdb", "with the document": "#d9dee4"}
_TOP, _HEIGHT, _BAR, _GAP = 64, 200, 62, 26
_N = "Learned: n = 72 on 36 facts, choice of four. Kept: n = 30."
_SETTING = "SmolLM2-135M-Instruct, fifteen documents, fine-tuning within 0.1 nats of drift, one seed, 2 CPU cores."
_SAID = "Right answers in percent: learned from 15 to 46, with the document in view 72; kept 87 before and after"
_FONT = "font-family='system-ui, sans-serif' font-size"


def drawn() -> str:
    """The picture as SVG, in one size, for light and dark pages."""
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 640 340' role='img' aria-label='{_SAID}'>",
        "<rect width='640' height='340' fill='white'/>",
        *_group("Learned: facts of the documents", 30, LEARNED),
        *_group("Kept: what it could do before", 390, KEPT),
        _text(30, 318, 11, f"Right answers in %, lines: 95 % over questions. {_N}", "#555"),
        _text(30, 334, 11, _SETTING, "#555"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _group(title: str, left: int, bars: dict[str, tuple[int, int, int]]) -> list[str]:
    base = _TOP + _HEIGHT
    right = left + len(bars) * (_BAR + _GAP)
    parts = [_text(left, 30, 16, title, "#111")]
    parts.append(f"<line x1='{left}' y1='{base}' x2='{right}' y2='{base}' stroke='#888'/>")
    for i, (name, (value, low, high)) in enumerate(bars.items()):
        x = left + 8 + i * (_BAR + _GAP)
        middle, y, label = x + _BAR // 2, base - value * 2, name.replace("the ", "the\n").split("\n")
        parts += [
            f"<rect x='{x}' y='{y}' width='{_BAR}' height='{value * 2}' fill='{COLOURS[name]}'/>",
            f"<line x1='{middle}' y1='{base - low * 2}' x2='{middle}' y2='{base - high * 2}' stroke='#111'/>",
            _text(x + 4, base - 8, 15, str(value), "#fff" if name == "after" else "#111"),
            *(_text(x, base + 18 + 14 * j, 12, line, "#333") for j, line in enumerate(label)),
        ]
    return parts


def _text(x: int, y: int, size: int, text: str, colour: str) -> str:
    return f"<text x='{x}' y='{y}' {_FONT}='{size}' fill='{colour}'>{text}</text>"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(), encoding="utf-8")
