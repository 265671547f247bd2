"""What the profile of a lease stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_core.exceptions import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.config import Profile
    from hermes_core.slots import LeaseRequest

__all__ = ["resolve_profile"]


def resolve_profile(request: LeaseRequest, profiles: Mapping[str, Profile]) -> LeaseRequest:
    """Return a request without a profile: a pool knows images and variables, not the names that settings give them.

    What the request says itself takes precedence; a network that either wants is had.

    Raises:
        UnknownNameError: The settings have no such profile.
    """
    if request.profile is None:
        return request
    profile = profiles.get(request.profile)
    if profile is None:
        raise UnknownNameError("profile", request.profile, profiles)
    return replace(
        request,
        profile=None,
        image=request.image or profile.image,
        network="host" if "host" in (request.network, profile.network) else "none",
        env={**profile.env, **request.env},
        limits={**profile.limits, **request.limits},
    )
