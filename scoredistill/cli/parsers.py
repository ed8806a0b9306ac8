"""A parser of options whose errors are one message."""

from __future__ import annotations

import argparse
from typing import NoReturn

from scoredistill.cli.errors import UsageError


class OptionParser(argparse.ArgumentParser):
    """argparse's, but that it raises what is wrong, and says where the help is.

    Raises:
        UsageError: by `parse_args`, if an option is wrong.
    """

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")
