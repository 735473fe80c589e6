"""How blocks, commands and expected outputs are read from a page."""

from __future__ import annotations

import pytest

from tests.docs.pages import Block, blocks, commands, conversation, links, pattern


def test_blocks_of_every_kind(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text [a](b.md)\n\n    make it   # now\n\n- item\n\n  ```toml\n  # x.toml\n  a = 1\n  ```\n")
    found = list(blocks(page))
    assert [(block.language, block.line, block.file) for block in found] == [("sh", 3, None), ("toml", 7, "x.toml")]
    assert list(links(page)) == ["b.md"]


def test_commands_are_joined_and_their_comments_go():
    text = "a \\\n  --b   # c\n# only a comment\nfor x in 1; do for y in 2; do\n  c $x # d\ndone; done\nd --e '#f'\n"
    assert commands(Block("sh", text, 1)) == ["a --b", "for x in 1; do for y in 2; do\nc $x\ndone; done", "d --e '#f'"]


def test_a_conversation_has_commands_and_their_lines():
    said = conversation(Block("console", "$ a\nb\nc\n$ echo $?\n2\n", 1))
    assert [(one.command, one.lines) for one in said] == [("a", ["b", "c"]), ("echo $?", ["2"])]


@pytest.mark.parametrize(
    ("lines", "output", "matches"),
    [
        (["a … c"], "x\na b c\n", True),
        (["…", "b"], "b\n", True),
        (["…", "b"], "a\na\nb\n", True),
        (["b"], "bc\n", False),
        (["a", "b"], "b\na\n", False),
        (["1.5"], "125\n", False),
    ],
)
def test_an_output_is_as_shown(lines, output, matches):
    assert bool(pattern(lines).search(output)) == matches
