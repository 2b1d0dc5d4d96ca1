"""docs/benchmarks.md: a section for each group of measurements, which are taken at different times."""
import datetime, os, platform, re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `scripts/bench` and `scripts/bench-server`; run them yourself. Commands are run alternately, and medians compared.
The machine is a small, noisy one, so read ratios, not times.
"""


def table(ours, rows):
    """Rows of work, figure, peers, bar and whether it was met."""
    lines = [f"| work | {ours} | peers | bar | met |", "|---|---|---|---|---|"]
    # Commands with a pipe would end a cell.
    return "\n".join(lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]) + "\n"


def conditions(how):
    """When and on what something was measured, and how."""
    return f"- {datetime.date.today()}, Linux {platform.release()}, {os.cpu_count()} processors, {how}\n"


def put(title, text):
    """Puts a section in the place of the one with its title, or behind all others."""
    sections = re.split(r"^(?=## )", PAGE.read_text(), flags=re.M)[1:]
    new = f"## {title}\n\n{text}"
    at = next((n for n, section in enumerate(sections) if section.startswith(f"## {title}\n")), len(sections))
    sections[at:at + 1] = [new]
    PAGE.write_text("\n".join(section.rstrip("\n") + "\n" for section in [HEAD, *sections]))
