"""What is measured and with what: servers, each on its copy of a database, and rounds of calls."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.load import Round
from bench.report import Goal
from bench.seed import Seeded, kept_seed, seed
from bench.servers import idpass_server, module
from bench.targets import Results, Served, Target, interleaved


class Settings(NamedTuple):
    rounds: int
    window_s: float
    passes: int  # in the large database
    tail_s: float
    most_passes: int  # in the largest database; 0: there is none


class Stand:
    """
    Args:
        folder: for databases and logs; several copies of the large database go there.

    Attributes:
        goals: what was found so far.
        rounds: what was measured while nothing ran but servers and their callers.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.goals: list[Goal] = []
        self.rounds: list[Round] = []
        self._served: dict[str, Served] = {}
        self._templates: dict[str, Seeded] = {}

    def stop(self) -> None:
        for served in self._served.values():
            served.stop()

    async def _rounds(self, targets: list[Target], in_flight: int) -> Results:
        settings = self.settings
        try:
            results = await interleaved(targets, in_flight, settings.rounds, settings.window_s)
        finally:
            for target in targets:
                await target.close()
        self.rounds += [one for rounds in results.values() for one in rounds]
        return results

    def _real(self) -> Served:
        return self._serve("idpass-server", self._many(), idpass_server)

    def _peer(self, name: str) -> Served:
        return self._serve(name, self._many(), lambda db: module(name, str(db)))

    def _serve(
        self,
        name: str,
        template: Seeded | None,
        command: Callable[[Path], list[str]],
        environment: dict[str, str] | None = None,
    ) -> Served:
        if name not in self._served:
            self._served[name] = Served(name, self.folder, template, command, environment)
        return self._served[name]

    def _many(self) -> Seeded:
        return self._seed("many.seed", in_flight=self.settings.passes, history=0)

    def _most(self) -> Seeded:
        if "most" not in self._templates:
            self._templates["most"] = kept_seed(self.settings.most_passes)
        return self._templates["most"]

    def _few(self) -> Seeded:
        # Beside the thousand, the passes that a few rounds cancel: not every round is to meet a
        # server that has only just started.
        in_flight = int(3 * 8_000 * (self.settings.window_s + 0.25))
        return self._seed("few.seed", in_flight=in_flight, history=1_000)

    def _seed(self, name: str, *, in_flight: int, history: int) -> Seeded:
        if name not in self._templates:
            path = self.folder / name
            self._templates[name] = seed(path, in_flight=in_flight, history=history)
        return self._templates[name]
