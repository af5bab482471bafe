"""Any artifact folder to its README.md: a pure function of what was measured."""
