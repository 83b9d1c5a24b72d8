"""States of the sandbox page: races, faults, the guide, the code panel."""

from kit.states.state import State

STATES: list[State] = []
