"""Where a study is kept: a journal in its folder, or a server that several tuners share."""

import importlib.util
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kamerton.core.errors import ParamsError, PipelineError, ToolMissingError
from kamerton.smart_tuner.journal import open_study
from kamerton.smart_tuner.storage_outage import Outages
from kamerton.tracking.redaction import MASK

if TYPE_CHECKING:
    import optuna

_ENVIRONMENT: Final = "env:"
_GRPC: Final = "grpc"
_READY_SECONDS: Final = 10.0


def open_shared_study(address: str, name: str) -> "tuple[optuna.Study, Outages]":
    """The study called ``name`` on a server, made if there is none.

    Its calls wait for the server where that is away for a while.

    Args:
        address: ``tune.storage``: the URL of a database, ``grpc://host:port`` of Optuna's proxy, or
            ``env:NAME`` for an environment variable that holds such a URL, which may have
            credentials.
        name: the study's name, equal on all machines.

    Raises:
        ParamsError: the variable is not set, or the address is none.
        ToolMissingError: optuna, or the driver of the database, is not installed.
        PipelineError: the server does not answer.
    """
    try:
        import optuna
    except ImportError as error:
        raise ToolMissingError("optuna", extra="tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = _resolved(address)
    try:
        storage = _grpc_storage(url) if url.startswith(f"{_GRPC}://") else _database(url)
        outages = Outages(_without_credentials(url))
        outages.watch(storage)
        study = optuna.create_study(
            study_name=name, storage=storage, direction="minimize", load_if_exists=True
        )
    except ImportError as error:
        raise ToolMissingError(
            f"{error.name or 'the driver'} (for tune.storage)", extra="tune"
        ) from error
    except PipelineError:
        raise
    except Exception as error:
        # Drivers raise what they like, and their words may hold the URL with its password.
        raise PipelineError(
            f"tune.storage: {_without_credentials(url)} cannot be used ({type(error).__name__}).",
            hint="see that its server runs and lets this machine in",
        ) from None
    return study, outages


def open_local_study(journal: Path, name: str) -> "optuna.Study":
    """The study in a journal of this machine; see ``journal.open_study``."""
    return open_study(journal, name)


def _resolved(address: str) -> str:
    if not address.startswith(_ENVIRONMENT):
        return address
    variable = address.removeprefix(_ENVIRONMENT)
    url = os.environ.get(variable, "")
    if "://" not in url:
        raise ParamsError(
            f"tune.storage: the environment variable {variable} holds no URL.",
            hint=f"export {variable}=postgresql://user:password@host/database",
        )
    if url.startswith("sqlite"):
        raise ParamsError(
            f"tune.storage: {variable} names SQLite, which takes one writer at a time.",
            hint="leave tune.storage null for one machine, or use a database server",
        )
    return url


def _grpc_storage(url: str) -> "optuna.storages.BaseStorage":
    import optuna

    parts = urlsplit(url)
    if importlib.util.find_spec("grpc") is None:
        raise ToolMissingError("grpcio (for tune.storage: grpc://)", extra="train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = optuna.storages.GrpcStorageProxy(
            host=parts.hostname or "localhost", port=parts.port or 13000
        )
    proxy.wait_server_ready(timeout=_READY_SECONDS)
    return proxy


def _database(url: str) -> Any:
    import optuna

    # Cached: finished trials are read once.
    return optuna.storages.get_storage(url)


def _without_credentials(url: str) -> str:
    """What may be shown of a URL, also of one that is none."""
    scheme, _, rest = url.partition("://")
    try:
        # A password that is not quoted may hold a slash or an @.
        parts = urlsplit(f"{scheme}://{rest.rpartition('@')[2]}")
        return f"{scheme}://{parts.hostname or ''}{parts.path}"
    except ValueError:
        return f"{scheme}://{MASK}"
