"""The student: a small transformer distilled from the teacher, exported to one ONNX graph and quantised."""
