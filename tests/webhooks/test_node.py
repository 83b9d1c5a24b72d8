"""A receiver in Node verifies our signatures with the library that Standard Webhooks has for it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from kit.hooked import Hooked
from kit.receiver import Receiver, Request

VERIFY = """
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, body, headers } = JSON.parse(readFileSync(0, "utf8"));
console.log(new Webhook(secret).verify(body, headers).type);
"""

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None, reason="npm brings the library that verifies"
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("node")
    (folder / "verify.mjs").write_text(VERIFY)
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "standardwebhooks@1"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot get standardwebhooks: {installed.stderr[-300:]}")
    return folder


def verified(node: Path, secret: str, request: Request) -> "subprocess.CompletedProcess[str]":
    given = {"secret": secret, "body": request.body.decode(), "headers": request.headers}
    return subprocess.run(
        ["node", "verify.mjs"],
        cwd=node,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_node_verifies_both_secrets_of_a_rotation_and_no_other(
    hooked: Hooked, receiver: Receiver, node: Path
) -> None:
    webhook, old = hooked.hook(receiver.url)
    _, new = hooked.run(hooked.webhooks.rotate_secret("demo", webhook.id))
    _, other = hooked.hook(receiver.url)
    hooked.register(applicant_reference="Zoë <b>")
    requests = receiver.wait_for(2)
    (request,) = (each for each in requests if len(each.headers["webhook-signature"].split()) == 2)
    for secret in (old, new):
        done = verified(node, secret, request)
        assert done.stdout == "id_pass.registered\n", done.stderr
    refused = verified(node, other, request)
    assert refused.returncode != 0
    assert "No matching signature found" in refused.stderr
