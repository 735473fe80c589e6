"""What protects smashed data, and how well."""
