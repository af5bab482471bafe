"""The release key of a recipe: made once, kept beside its artifacts, readable by its owner alone."""

import os
import subprocess
import sys
from pathlib import Path

PRIVATE_KEY, TRUSTED_KEYS = "release-key.pem", "trusted-keys.json"
