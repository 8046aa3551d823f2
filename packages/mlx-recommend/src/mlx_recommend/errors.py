"""What can go wrong in mlx-recommend."""


class RecommendError(Exception):
    """Base of everything that this library raises on purpose.

    Attributes:
        field: The argument that is to blame.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
