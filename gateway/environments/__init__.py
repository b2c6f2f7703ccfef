"""Environments: what a scoring script runs in, from what Azure ML's files say to an interpreter on this machine."""

from gateway.environments.cache import Environment, EnvironmentLimits, Environments
from gateway.environments.python_env import conda_of_python_env
from gateway.environments.recipe import EnvironmentRefused

__all__ = ["Environment", "EnvironmentLimits", "EnvironmentRefused", "Environments", "conda_of_python_env"]
