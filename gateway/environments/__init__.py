"""Environments: what a scoring script runs in, from what Azure ML's files say to an interpreter on this machine."""

from gateway.environments.cache import Environment, EnvironmentLimits, Environments
from gateway.environments.recipe import EnvironmentRefused

__all__ = ["Environment", "EnvironmentLimits", "EnvironmentRefused", "Environments"]
