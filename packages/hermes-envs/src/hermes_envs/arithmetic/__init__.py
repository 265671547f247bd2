"""Generated word problems that are solved by running code."""

from hermes_envs.arithmetic._config import ArithmeticConfig
from hermes_envs.arithmetic._environment import ArithmeticEnvironment

__all__ = ["ArithmeticConfig", "ArithmeticEnvironment"]
