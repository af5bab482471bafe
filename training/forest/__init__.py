"""The forest student: scikit-learn forests on twelve summaries, behind the interface of the transformer."""
