"""Write the project's home into what is published, before a release is built.

    python docs/home.py https://HOST/OWNER/NAME --ref v1.2.3

The sources name no home: whoever publishes them decides where that is. The release workflow runs
this in its own checkout, with the address of the repository that it runs in. It is the one place
for the project URLs in pyproject.toml (shown by PyPI), repository-code in CITATION.cff, and the
links of README.md, which PyPI cannot follow while they are relative. The changed files are built
from, and not committed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!\w+:|#)([^)\s]+)\)")


def absolute(text: str, home: str, ref: str) -> str:
    """Return Markdown whose relative links lead to files of a commit or tag of the repository."""

    def link(found: re.Match[str]) -> str:
        picture, shown, path = found.groups()
        return f"{picture}{shown}({home}/{'raw' if picture else 'blob'}/{ref}/{path})"

    return LINK.sub(link, text)


def project_urls(home: str, ref: str) -> str:
    """Return the table of pyproject.toml that PyPI shows beside the README."""
    pages = {
        "Homepage": home,
        "Documentation": f"{home}/blob/{ref}/docs/index.md",
        "Changelog": f"{home}/blob/{ref}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
    return "".join(["[project.urls]\n", *(f'{name} = "{url}"\n' for name, url in pages.items())])


def write_home(root: Path, home: str, ref: str) -> None:
    """Change the three files in a checkout; ValueError where they name a home already."""
    project, citation, readme = (
        root / name for name in ("pyproject.toml", "CITATION.cff", "README.md")
    )
    texts = {path: path.read_text() for path in (project, citation, readme)}
    if "[project.urls]" in texts[project]:
        raise ValueError(f"{project}: names a home already; start from a fresh checkout")
    scripts = "[project.scripts]"
    texts[project] = texts[project].replace(scripts, f"{project_urls(home, ref)}\n{scripts}", 1)
    code = f'repository-code: "{home}"\nlicense:'
    texts[citation] = texts[citation].replace("license:", code, 1)
    texts[readme] = absolute(texts[readme], home, ref)
    for path, text in texts.items():
        path.write_text(text)


def main() -> None:
    """Read the command line, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("home", help="address of the repository, https://...")
    parser.add_argument("--ref", required=True, help="tag or commit that is published")
    told = parser.parse_args()
    home = told.home.rstrip("/")
    if not re.fullmatch(r"https://[\w.-]+(/[\w.~-]+)+", home):
        sys.exit(f"{home}: is no address of a repository, such as https://HOST/OWNER/NAME")
    try:
        write_home(ROOT, home, told.ref)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
