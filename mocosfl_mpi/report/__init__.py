"""One page for people: what was run, what came of it, what it cost and gave away, and how to do it again.

`reading` opens the runs, `pictures` draws their figures, `single` and `several` put the page together from `parts`,
`privacy` adds audits, and `page` makes one HTML file of it that needs nothing beside itself. Needs matplotlib, pandas
and jinja2 (extra ``analysis``).
"""
