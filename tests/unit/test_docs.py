"""The pages keep up with the code: the diagram of states, the words, and every link between pages."""

import re
from pathlib import Path

import pytest

from notifier.domain.messages import FINAL, NEXT
from notifier_channels import contract

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        if anchor:
            assert anchor in _anchors(other), target


def _prose(page: Path) -> str:
    """Without what stands in code blocks."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text())


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
