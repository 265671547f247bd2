"""The agent: a model that calls tools until it answers."""

from hermes_core.agent._agent import Agent
from hermes_core.agent._calls import SlotSource
from hermes_core.agent._lazy_conversation import LazyConversation
from hermes_core.agent._limits import AgentLimits
from hermes_core.agent._outcomes import outcome_of
from hermes_core.agent._run import AgentRun

__all__ = ["Agent", "AgentLimits", "AgentRun", "LazyConversation", "SlotSource", "outcome_of"]
