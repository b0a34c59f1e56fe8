"""Put the measured tables into the documents: the only way in which numbers get there.

python benchmarks/render.py           fill each ``<!-- table: NAME -->`` ... ``<!-- end -->`` from docs/results/*.json
python benchmarks/render.py --check   change nothing; exit status 1 where a document differs from what was measured
"""

import argparse
import json
import re
import sys
from pathlib import Path

from measure import RESULTS, ROOT, weights

import diffae_core as core

BLOCK = re.compile(r"(<!-- table: (?P<name>[^>]+?) -->\n).*?(?=<!-- end -->)", re.DOTALL)
STALE = "**Measured on other weights ({}) than those shipped now.**"
MISSING = "*Not measured on these weights yet.*\n"


def documents() -> list[Path]:
    cards = [ROOT / "README.md", ROOT / "diffae_core" / "pretrained" / "README.md"]
    return [path for path in [*cards, *sorted((ROOT / "docs").glob("*.md"))] if path.exists()]


def load() -> dict[str, tuple[dict, dict]]:
    """Each table's name -> (the table, the result that it belongs to)."""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        found |= {name: (table, result) for name, table in result["tables"].items()}
    return found


def cell(value, form: str) -> str:
    """A value in its column's format: a string as it is, nothing for None, and a list as several values."""
    if value is None or isinstance(value, str):
        return value or ""
    return form.format(*value) if isinstance(value, list) else form.format(value)


def fact(name: str, value) -> str:
    number = value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return f"{name} {number}"


def markdown(table: dict, result: dict) -> str:
    """The table in Markdown, under a line that says with what it was measured."""
    formats = table["formats"]
    lines = [table["columns"], ["---"] * len(formats)]
    lines += [[cell(value, form) for value, form in zip(row, formats)] for row in table["rows"]]
    made_with = [fact(*pair) for pair in table["facts"].items()]
    made_with += [f"`{result['command']}`", result["machine"], f"commit {result['commit']}"]
    made_with += [result["note"]] if "note" in result else []
    stale = result["weights"] not in ("none", weights())
    head = STALE.format(result["weights"]) + "\n\n" if stale else ""
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n*{'; '.join(made_with)}.*\n"


def render(text: str, tables: dict[str, tuple[dict, dict]]) -> str:
    """The document with each of its blocks as the results give it."""

    def block(match: re.Match) -> str:
        name = match["name"].strip()
        return match[1] + "\n" + (markdown(*tables[name]) if name in tables else MISSING) + "\n"

    return BLOCK.sub(block, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check, tables, differing = parser.parse_args().check, load(), []
    for path in documents():
        text = path.read_text()
        if (rendered := render(text, tables)) != text:
            differing.append(str(path.relative_to(ROOT)))
            if not check:
                with core.checkpoints.atomic_write(path) as temporary:
                    temporary.write_text(rendered)
    print(("differs: " if check else "rendered: ") + (", ".join(differing) or "nothing"))
    sys.exit(check and bool(differing))


if __name__ == "__main__":
    main()
