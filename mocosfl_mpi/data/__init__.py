"""Images, their partition among clients, and the two views of each.

Import the modules directly; this package imports nothing, so that ``data.check`` stays light.
"""
