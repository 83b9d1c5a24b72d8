"""The gateway in a process of its own."""

import json
import signal
import subprocess
import sys

import httpx

from kit.http import Http, reason


def test_it_speaks_for_a_service_elsewhere_and_goes_when_told(server: Http) -> None:
    command = [sys.executable, "-m", "idpass_server", "gateway", "--target", server.address]
    process = subprocess.Popen(
        [*command, "--http", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        assert (line["event"], line["sandbox"]) == ("gateway", False)
        with httpx.Client(base_url=f"http://{line['http']}", trust_env=False) as http:
            pass_id = server.pass_in("in_progress")
            answer = http.post("/idpass/cancel", json={"id": pass_id}).json()
            assert (answer["status"], answer["fee_refunded"]) == ("cancelled", False)
            again = http.post("/idpass/cancel", json={"id": pass_id})
            assert (again.status_code, reason(again)) == (400, "PASS_ALREADY_CANCELLED")
            assert http.post("/sandbox/reset", json={}).status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
