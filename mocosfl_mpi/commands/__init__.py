"""The subcommands of ``mocosfl``, one module each: ``add`` declares its arguments, ``_run`` does it."""
