"""EISV-Lumen: the states, shapes and voice of an embodied agent, and the student that learned them."""

__version__ = "0.1.0"
