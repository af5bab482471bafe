"""Sensor logs, databases, live telemetry and synthetic trajectories, made into one dataset folder."""

import os

# The matrices are small: further threads of the linear algebra would only wait, and take the cores' time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
