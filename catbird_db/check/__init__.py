"""Proves stubs, SQL, plans and migrations before anyone runs them: `catbird-db check`.

`runner.run` is the whole of it; docs/check.md says what each rule proves, and how. Nothing is
imported here: the command lists itself without loading a parser.
"""
