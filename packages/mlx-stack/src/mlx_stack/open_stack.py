"""A state folder opened for one command: each of its files is read once and handed down."""

import os
from collections.abc import Mapping
from functools import cached_property

from mlx_catalog import Catalog, load_catalog
from mlx_stack.config import Config, load_config
from mlx_stack.errors import NoStackError, StackError
from mlx_stack.home import Home
from mlx_stack.stack import Stack, load_stack


class OpenStack:
    """What a command knows of a state folder, as it was when the command first asked.

    Nothing is read before it is asked for, and nothing is read twice: two parts of one command
    never see two versions of a file. What runs for days opens the folder again.

    Attributes:
        variables: The environment that services take theirs from.
    """

    def __init__(self, home: Home, variables: Mapping[str, str] = os.environ) -> None:
        self.home = home
        self.variables = variables

    @cached_property
    def config(self) -> Config:
        """The configuration in force.

        Raises:
            InvalidFileError: When it is damaged.
        """
        return load_config(self.home)

    @cached_property
    def stack(self) -> Stack:
        """The stack file.

        Raises:
            NoStackError: When no stack is defined.
            InvalidFileError: When the file is damaged.
        """
        return load_stack(self.home.stack)

    @property
    def defined_stack(self) -> Stack | None:
        """The stack file; None where no stack is defined.

        Raises:
            InvalidFileError: When the file is damaged.
        """
        try:
            return self.stack
        except NoStackError:
            return None

    @property
    def readable_stack(self) -> Stack | None:
        """The stack file; None where there is none that can be read."""
        try:
            return self.stack
        except (StackError, OSError):
            return None

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog with the user's own entries.

        Raises:
            InvalidCatalogError: When one of these breaks the schema.
        """
        return load_catalog(self.home.catalog)
