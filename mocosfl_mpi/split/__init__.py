"""Networks as flat lists of layers, where they are cut, and many clients' copies stacked."""
