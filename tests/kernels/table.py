"""The table of docs/networks.md, from the results of a whole run of the bench."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kernels.scenarios import SCENARIOS

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
BEGIN, END = "<!-- results of the bench -->", "<!-- end of the results -->"


def results_table(results: list[dict[str, object]]) -> str:
    """Return the results as a table in Markdown: network, kernel, corrected, wrong."""
    lines = ["| network | kernel | corrected | wrong | |", "|---|---|--:|--:|---|"]
    for row in results:
        title = SCENARIOS[str(row["scenario"])].title
        told = row["problem"] or row["refused"]
        counts = f"{row['corrected']} of {row['answered']} | {row['wrong']}"
        lines.append(f"| {title} | {row['kernel']} | {counts} | {told} |")
    return "\n".join(lines)


def with_table(page: str, results: list[dict[str, object]]) -> str:
    """Return the page with the table of these results in its place."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{results_table(results)}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), json.loads(RESULTS.read_text())))
