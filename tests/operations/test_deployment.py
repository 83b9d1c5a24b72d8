"""The files of server/deploy: sound by the rules of what reads them, and run as they stand but for
places and ports.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import kubernetes_validate
import pytest

from idpass_server.config import Settings
from idpass_server.processes.supervisor import KILL_S
from kit.certificates import Authority
from kit.deployed import (
    CONTAINERFILE,
    UNIT,
    image_env,
    instruction,
    instructions,
    manifests,
    pod,
    unit,
    words,
)
from kit.manager import manager_at_a_path
from kit.paths import KIT, ROOT
from kit.shell import PROGRAMS

STOP_S: Final = Settings.drain_s + KILL_S
"""Longest time that a stop takes, seconds."""
EXPOSURE: Final = 2.0
"""Highest exposure level of the unit: of 10, and 9.6 for a unit that restricts nothing."""
KUBERNETES: Final = "1.34"
CONFINED: Final = (sys.executable, str(KIT / "confined.py"), str(UNIT))
IN_A_POD: Final = ("Deployment", "StatefulSet", "Job")


class Place:
    """A machine's places in a folder of the test's own.

    Attributes:
        ports: the port here for each port of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, self.settings = folder / "data", folder / "etc"
        self.data.mkdir(mode=0o700)
        for name in ("callers", "tls"):
            (self.settings / name).mkdir(parents=True)
        authority = Authority(folder)
        pair = authority.issue("localhost", "127.0.0.1")
        for name, path in {
            "tls.crt": pair.cert,
            "tls.key": pair.key,
            "ca.crt": authority.path,
        }.items():
            shutil.copy(path, self.settings / "tls" / name)
        self.ports = {port: _free_port() for port in ("50051", "8081", "9090")}

    def callers(self, where: str, text: str) -> None:
        (self.settings / where).write_text(text)

    def __call__(self, text: str) -> str:
        """What a text of the files is here."""
        text = text.replace("/opt/idpass/bin", str(PROGRAMS))
        text = text.replace("/var/lib/idpass", str(self.data))
        text = text.replace("/etc/idpass", str(self.settings))
        for written, meant in self.ports.items():
            text = text.replace(f":{written}", f":{meant}")
        return text.replace("0.0.0.0", "127.0.0.1")

    def run(self, command: Sequence[str], env: Mapping[str, str]) -> str:
        """Runs a command to its end, which is to be a success."""
        done = subprocess.run(
            [self(each) for each in command],
            env=self._env(env),
            cwd=self.data,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(
        self, command: Sequence[str], env: Mapping[str, str]
    ) -> Iterator["subprocess.Popen[str]"]:
        """A command that serves, until the test is done with it; it then ends as it should."""
        process = subprocess.Popen(
            [self(each) for each in command],
            env=self._env(env),
            cwd=self.data,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            log = []
            for line in process.stderr:
                log.append(line)
                if '"event": "serving"' in line:
                    break
            else:
                raise AssertionError("".join(log))
            yield process
            process.send_signal(signal.Signals[instruction("STOPSIGNAL")])
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    def _env(self, env: Mapping[str, str]) -> dict[str, str]:
        path = {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
        return os.environ | path | {name: self(value) for name, value in env.items()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def an_account(place: Place, env: Mapping[str, str]) -> None:
    """What an operator does first."""
    place.run(["idpass-server", "init"], env)
    place.run(["idpass-server", "account", "create", "acme", "--slots", "9", "--fee", "AUD 1"], env)


def callers_of_the_pods() -> str:
    (callers,) = (each for each in manifests() if each["kind"] == "ConfigMap")
    text: str = callers["data"]["callers.toml"]
    return text


# -- container


def test_a_linter_finds_nothing_in_the_containerfile() -> None:
    done = subprocess.run(
        [PROGRAMS / "hadolint", CONTAINERFILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_into_the_image_exists() -> None:
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    sources = [each for words in copied for each in words if not words[0].startswith("--from=")]
    assert len(sources) >= 5
    for source in sources:
        assert (ROOT / source).exists(), source


def test_the_image_serves_and_says_that_it_is_well(place: Place) -> None:
    env = image_env()
    an_account(place, env)
    place.callers("callers/callers.toml", callers_of_the_pods())
    command = words(instruction("ENTRYPOINT")) + words(instruction("CMD"))
    with place.serving(command, env):
        check = words(instruction("HEALTHCHECK").partition(" CMD ")[2])
        assert place.run(check, env) == "serving\n"


# -- systemd


def test_systemd_understands_the_unit(place: Place) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    file = place.folder / UNIT.name
    file.write_text(UNIT.read_text().replace("/opt/idpass/bin", str(PROGRAMS)))
    analyze = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(analyze, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    threshold = f"--threshold={EXPOSURE * 10:.0f}"
    analyze = ["systemd-analyze", "security", "--offline=true", threshold, str(file)]
    done = subprocess.run(analyze, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_unit_serves_within_its_confinement(place: Place) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    env = dict(each.split("=", 1) for each in unit("Environment"))
    an_account(place, env)
    place.callers("callers.toml", callers_of_the_pods())
    (command,) = unit("ExecStart")
    (watchdog_s,) = unit("WatchdogSec")
    with manager_at_a_path() as manager:
        env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": f"{watchdog_s}000000"}
        env["IDPASS_LISTEN"] = "127.0.0.1:50051"
        with place.serving([*CONFINED, *command.split()], env) as server:
            manager.until("READY")
            manager.until("WATCHDOG")
            (reload,) = unit("ExecReload")
            place.run([word.replace("$MAINPID", str(server.pid)) for word in reload.split()], {})
            manager.until("RELOADING")
            manager.until("READY")
        manager.until("STOPPING")


def test_the_unit_lets_the_clock_be_asked() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    ask = "from idpass_server.engine.clock import kernel_synchronised as ask; print(ask())"
    python = (sys.executable, "-c", ask)
    free, confined = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (python, (*CONFINED, *python))
    )
    assert confined == free


def test_whatever_stops_a_server_waits_until_it_has_ended() -> None:
    (timeout_s,) = map(float, unit("TimeoutStopSec"))
    assert timeout_s > STOP_S
    for file, kind in (("sqlite.yaml", "StatefulSet"), ("postgresql.yaml", "Deployment")):
        spec = pod(file, kind)
        (server,) = spec["containers"]
        before_s = server["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] > before_s + STOP_S


# -- Kubernetes


def test_kubernetes_understands_the_manifests() -> None:
    found = manifests()
    for each in found:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    assert {each["kind"] for each in found} >= {*IN_A_POD, "Service", "PodDisruptionBudget"}


def test_every_pod_is_restricted() -> None:
    pods = [each["spec"]["template"]["spec"] for each in manifests() if each["kind"] in IN_A_POD]
    assert len(pods) == 4
    for spec in pods:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert str(spec["securityContext"]["runAsUser"]) == instruction("USER").partition(":")[0]
        assert spec["enableServiceLinks"] is spec["automountServiceAccountToken"] is False
        volumes = {each["name"] for each in spec.get("volumes", [])} | {"data"}
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {each["name"] for each in container.get("volumeMounts", [])} <= volumes


@pytest.mark.parametrize(
    ("name", "kind"), [("sqlite", "StatefulSet"), ("postgresql", "Deployment")]
)
def test_the_pods_serve(place: Place, name: str, kind: str, request: pytest.FixtureRequest) -> None:
    here = {}
    if name == "postgresql":
        here = {"IDPASS_DB": request.getfixturevalue("postgres_url")}
    setup, serve = pod(f"{name}-setup.yaml", "Job"), pod(f"{name}.yaml", kind)
    place.callers("callers/callers.toml", callers_of_the_pods())

    def run_as_it_stands(container: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        given = {
            each["name"]: each["value"] for each in container.get("env", []) if "value" in each
        }
        return words(instruction("ENTRYPOINT")) + container["args"], image_env() | given | here

    before = (*setup["initContainers"], *setup["containers"], *serve.get("initContainers", []))
    for container in before:
        place.run(*run_as_it_stands(container))
    (server,) = serve["containers"]
    ports = {each["name"]: place.ports[str(each["containerPort"])] for each in server["ports"]}
    with place.serving(*run_as_it_stands(server)):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = server[probe]["httpGet"]
            url = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
            assert httpx.get(url, trust_env=False).status_code == 200, probe
        metrics = httpx.get(f"http://127.0.0.1:{ports['metrics']}/metrics", trust_env=False)
        assert "idpass_" in metrics.text
