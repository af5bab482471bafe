"""Recipes: the stages of the rooms, strung together by running one command after the other."""
