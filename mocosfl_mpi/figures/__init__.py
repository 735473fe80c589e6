"""From runs to figures: one module a question, and what they share.

The module of a figure has ``draw(study, options)``, which yields a ``Drawing`` for each figure: its name, exactly the
numbers that are drawn, and how to paint them; ``arguments()``, the command line of its script in ``analysis/``; and
``main(argv)``, which that script calls. Needs matplotlib and pandas (extra ``analysis``), and neither torch nor MPI.
"""
