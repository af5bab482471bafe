"""Sensor logs, databases, live telemetry and synthetic trajectories, made into one dataset folder."""
