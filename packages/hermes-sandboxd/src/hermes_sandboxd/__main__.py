"""Runs `hermes-sandboxd`, as `python -m hermes_sandboxd` and as `python FOLDER_OF_THIS_FILE`."""

from __future__ import annotations

import os
import sys

if not __package__:
    # Run by its path, without site-packages: quick to start, and small to fork.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from hermes_sandboxd._cli import main

sys.exit(main())
