"""The pages keep up with the code: the diagram of states, the words, every link, and every file that is named."""

import re
from pathlib import Path

import pytest

from notifier.domain.messages import FINAL, NEXT
from notifier_channels import contract

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
HOUSE = ("notifier", "channels", "templates", "tests", "bench", "docker", "docs", ".ci")  #: where our files are
SOURCES = (".py", ".toml", ".yaml", ".env", ".j2", ".html", ".txt", "Dockerfile", "run")


def test_the_diagram_shows_every_transition_and_no_other() -> None:
    drawn = re.findall(r"^    (\S+) --> ([^\s:]+)", (DOCS / "concepts.md").read_text(), re.MULTILINE)
    known = {(str(state), str(following)) for state, all_following in NEXT.items() for following in all_following}
    known |= {("[*]", "queued")} | {(str(state), "[*]") for state in FINAL}
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == known


def test_the_table_of_states_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "concepts.md").read_text(), re.MULTILINE)
    states = [str(state) for state in NEXT]
    outcomes = [outcome.__name__ for outcome in contract.Outcome.__args__]
    assert sorted(rows) == sorted(states + outcomes)


def test_every_word_of_the_design_stands_in_the_glossary() -> None:
    design = (DOCS / "design.md").read_text().split("## 2. Words", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| ([A-Za-z, ]+) \| ", design, re.MULTILINE)
    words = {
        word.strip().capitalize() if word.islower() else word.strip() for cell in cells for word in cell.split(",")
    }
    defined = re.findall(r"^\*\*(.+)\*\*$", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert words - {"Word"} <= {word.strip() for entry in defined for word in entry.split(",")}
    assert len(defined) == len(set(defined))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", _prose(page)):
        target = "".join(target)  # noqa: PLW2901  whichever of the two it is
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        if anchor:
            assert anchor in _anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = {part for code in re.findall(r"`([^`\n]+)`", _prose(page)) for part in code.split()}
    made_later = set((ROOT / ".gitignore").read_text().split())
    missing = {name for name in named - made_later if _is_ours(name) and not _exists(name)}
    assert missing == set()


def test_every_page_that_code_speaks_of_is_there() -> None:
    files = [path for place in HOUSE for path in (ROOT / place).rglob("*") if path.name.endswith(SOURCES)]
    files += [ROOT / "run.py", ROOT / "pyproject.toml"]
    named = {name for path in files for name in re.findall(r"\bdocs/[a-z][\w./-]*\w", path.read_text())}
    assert {"docs/reference/settings.md", "docs/operate"} <= named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_page_is_listed_in_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def _is_ours(name: str) -> bool:
    """A path below one of our directories, or the bare name of a module or a page."""
    if re.search(r"[<>{}*=:]|\.\.\.|^/|\(", name):
        return False
    return (
        name.split("/", maxsplit=1)[0] in (*HOUSE, "notifier_channels")
        if "/" in name
        else name.endswith((".py", ".md"))
    )


def _exists(name: str) -> bool:
    if "/" in name:
        return (ROOT / name).exists() or (ROOT / "channels" / name).exists()
    return any(
        (ROOT / place).joinpath(name).exists() or any((ROOT / place).rglob(name)) for place in (".", *HOUSE[:-1])
    )


def _prose(page: Path) -> str:
    """Without what stands in code blocks."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text())


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
