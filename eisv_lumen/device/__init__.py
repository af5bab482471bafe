"""What runs on a device: live sensors, awareness, journal, and the updater that keeps its voice current."""
