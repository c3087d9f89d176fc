"""The vault itself: the row whose lock orders the changes of its structure."""

from ..pool import Executor
from ..query import query
from ..types import UserId

__all__ = ["lock_vault"]


@query
async def lock_vault(db: Executor, /, *, user_id: UserId) -> None:
    """Wait for all who change a vault's structure or write into it, and hold it until the end.

    The functions of the vault do so themselves. A transaction that calls several of them calls
    this first: else two of them may each wait for the other (TransactionConflictError).

    Raises:
        NotFoundError: there is no such user.
    """
    ...
