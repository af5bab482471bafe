"""From a dataset folder to a base model, a teacher, its labels, a student, and what they were measured at.

One script per stage: `pretrain_base`, `train_teacher`, `label`, `train_student`, `evaluate`.
"""
