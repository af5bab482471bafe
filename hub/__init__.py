"""Artifact folders to Hub repositories, as one release; and the local Hub."""
