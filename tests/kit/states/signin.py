"""States of the sandbox page where there is a callers file."""

from kit.states.state import State

STATES: list[State] = []
