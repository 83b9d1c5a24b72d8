"""Servers on one database, one after the other, each killed."""

import contextlib
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from kit.forked import Forks
from kit.killing import CLOCK, Drill, Kill, Target
from kit.serving import Program, Serving, url_of
from kit.witness import Witness

START_S: Final = 0.15
"""Longest time from the start to a kill by the clock, seconds."""
STOP_S: Final = 0.1
"""Longest time from SIGTERM to a kill by the clock, seconds."""


class Servers:
    """Servers on one database, one after the other.

    Args:
        forks: that serve.
        seed: of what is random.
        url: of the database; None is a new file.
        patch: Python that each server runs first.

    Attributes:
        drill: what came of it.
    """

    def __init__(self, forks: Forks, seed: int, *, url: str | None = None, patch: str = "") -> None:
        self._forks, self._faults = forks, forks.faults
        self._patch = patch
        if url is None:
            url = url_of(forks.disk / "idpass.db")
            self._remove()
        self._url = url
        self.drill = Drill(url, seed)

    def kill(self, kill: Kill) -> None:
        """Starts a server, and kills it."""
        if kill.when == "creation":
            if self.drill.unchecked:
                self.check()
            self.drill.begin_anew()
            self._remove()
        if kill.when in {"creation", "start"}:
            self._kill_as_it_starts(kill)
            return
        with self._server() as program:
            address = program.wait_for("serving")["listen"]
            self.drill.check(address)
            strike = self._strike if kill.when == "load" else self._strike_as_it_stops
            self.drill.load(address, partial(strike, program, kill))

    def check(self) -> None:
        """Serves once more, and asks for every answer."""
        with self._server() as program:
            self.drill.check(program.wait_for("serving")["listen"], everything=True)
            program.signal()
            assert program.wait() == 0

    def _remove(self) -> None:
        for each in self._forks.disk.iterdir():
            each.unlink()

    @contextlib.contextmanager
    def _server(self) -> Iterator[Program]:
        arguments = ("serve", "--db", self._url, *Serving.defaults)
        program = Program(self._forks.start(*arguments, patch=self._patch))
        try:
            yield program
        finally:
            program.end()

    def _kill_as_it_starts(self, kill: Kill) -> None:
        if kill.how != CLOCK:
            self._faults.set_fault("kill", kill.how, kill.number)
        with self._server() as program:
            if kill.how == CLOCK:
                time.sleep(self.drill.draw.random() * START_S)
            else:
                with contextlib.suppress(AssertionError):  # it has ended
                    program.wait_for("serving")
            met = kill.how == CLOCK or self._faults.clear_fault()
            self._end(program, kill, met=met)

    def _strike(self, program: Program, kill: Kill, witness: Witness) -> None:
        process = program.process
        target = Target(process.kill, lambda: process.poll() is not None)
        self.drill.strike(witness, kill, target, self._faults)
        assert program.wait() == -signal.SIGKILL

    def _strike_as_it_stops(self, program: Program, kill: Kill, witness: Witness) -> None:
        witness.wait_for_answers(self.drill.draw.randint(1, 5))
        if kill.how != CLOCK:
            self._faults.set_fault("kill", kill.how, kill.number)
        program.signal()
        if kill.how == CLOCK:
            time.sleep(self.drill.draw.random() * STOP_S)
            met = True
        else:
            program.wait()
            met = self._faults.clear_fault()
        self._end(program, kill, met=met)

    def _end(self, program: Program, kill: Kill, *, met: bool) -> None:
        """Kills what may be killed already. One that has stopped before was not killed."""
        program.process.kill()
        ended = program.wait()
        if ended == -signal.SIGKILL:
            self.drill.count(kill, met=met)
        elif ended:
            self.drill.bad.append(f"{kill} ended with {ended}: {program.log[-5:]}")
