"""These tests need signals and limits on resources, which Windows lacks: there they are not collected."""

import sys

collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []
