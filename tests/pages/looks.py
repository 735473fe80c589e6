"""What is asked of every page."""

from __future__ import annotations

WIDTHS = {"desk": 1280, "phone": 375, "small phone": 360}


def overflow(page):
    """How far the page is wider than the window, and what sticks out of its container."""
    return page.evaluate(
        """() => {
            const width = document.documentElement.clientWidth;
            const frames = '.scroll, .wide, pre';
            const out = [...document.querySelectorAll('main *')].filter(each => {
                if (each.closest(frames)?.contains(each) && !each.matches(frames)) return false;
                return each.getBoundingClientRect().right > width + 1;
            });
            const shown = out.slice(0, 3).map(each => each.outerHTML.slice(0, 200));
            return [document.documentElement.scrollWidth - width, shown];
        }"""
    )
