"""What the engine and its SDK raise, in Hermes's words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests
from docker import errors

from hermes_core.exceptions import BackendUnavailableError, HermesError, SandboxLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REFUSED", "engine_errors"]

START_HINT = "start it (systemctl start docker, or dockerd), or name another one: DOCKER_HOST, -B host=URL"
GROUP_HINT = "add your user to the group docker and log in again, or run as root"
IMAGE_HINT = "docker pull it, or choose another: -B image=TAG"
SPACE_HINT = "hermes sandbox cleanup --backend docker, and docker system prune, make room"
ADDRESS_HINT = "an address looks like unix:///var/run/docker.sock or tcp://HOST:2375"
REFUSED = "the Docker engine refused: "
NO_SOURCE = "bind source path does not exist"
SOURCE_HINT = (
    "correct -B volumes; or, if it is a folder of Hermes, run Hermes on the engine's machine, and in no container"
)
NO_SPACE = "no space left on device"


@contextmanager
def engine_errors(address: str) -> Iterator[None]:
    """Turn what the SDK raises into errors of Hermes.

    Args:
        address: The engine's address, for messages.

    Raises:
        BackendUnavailableError: Trying again is of no use until somebody changes something.
        SandboxLostError: The engine refused or failed this time.
    """
    try:
        yield
    except HermesError:
        raise
    except errors.ImageNotFound as error:
        raise BackendUnavailableError(_told(error), hint=IMAGE_HINT) from error
    except errors.APIError as error:
        told = _told(error)
        if NO_SPACE in told.lower():
            raise BackendUnavailableError(f"the Docker engine has no space left: {told}", hint=SPACE_HINT) from error
        if NO_SOURCE in told:
            raise BackendUnavailableError(f"{REFUSED}{told}", hint=SOURCE_HINT) from error
        raise SandboxLostError(f"{REFUSED}{told}") from error
    except (errors.DockerException, requests.RequestException, OSError) as error:
        raise _unreachable(error, address) from error


def _told(error: errors.APIError) -> str:
    """The engine's own words, in one line."""
    return " ".join(str(error.explanation or error).split())


def _unreachable(error: Exception, address: str) -> HermesError:
    match cause := _cause(error):
        case PermissionError():
            return BackendUnavailableError(f"the Docker engine at {address}: permission denied", hint=GROUP_HINT)
        case FileNotFoundError() | ConnectionRefusedError():
            return BackendUnavailableError(f"no Docker engine answers at {address}", hint=START_HINT)
        case requests.Timeout() | TimeoutError():
            return SandboxLostError(f"the Docker engine at {address} does not answer in time")
        case requests.exceptions.InvalidURL() | errors.DockerException() if cause is error:
            return BackendUnavailableError(f"the Docker engine at {address}: {_line(error)}", hint=ADDRESS_HINT)
    return SandboxLostError(f"the Docker engine at {address} went away: {_line(cause)}")


def _cause(error: BaseException) -> BaseException:
    """What the operating system said, which the SDK and its libraries wrap in several layers; else `error` itself."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if type(one).__module__ == "builtins" and isinstance(one, OSError) and one.errno is not None:
            return one
        if isinstance(one, (requests.Timeout, TimeoutError)):
            return one
        waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    return error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
