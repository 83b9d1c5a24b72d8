"""The TypeScript client as callers get it: the package, its README, and a service that restarts.

Promise: what `npm pack` makes can be imported and required, is typed in both ways, and has
nothing in it that does not belong there; every example of its README, and the program in
languages.md, compiles under --strict and runs; watchers and calls outlive restarts of the real
service. Means: publint and attw on the packed archive, tsc and node on it unpacked beside the
locked dependencies. Blind spots: other versions of Node.js and of the dependencies than those
installed, bundlers, and resolution as of Node.js 10.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import idpass
from idpass.webhooks import sign
from idpass_server.testing import RunningServer, running_server
from kit.documents import PAGES, blocks
from kit.serving import COMMAND
from kit.typescript import CLIENT, NODE, missing, run_tests

WHY = missing()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)

EXAMPLES = re.findall(r"```ts\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
EVENT = b'{"type":"webhook.test","timestamp":"2026-11-25T09:30:00Z","data":{"history":"h"}}'
NAMES = "passId: string, secret: string, readToken: () => Promise<string>"
TOOLS = CLIENT / "node_modules/.bin"


def command(*arguments: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        arguments,
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed archive."""
    folder = tmp_path_factory.mktemp("package")
    command("npm", "pack", "--silent", "--pack-destination", folder, cwd=CLIENT)
    return folder / f"idpass-client-{idpass.__version__}.tgz"


@pytest.fixture(scope="module")
def caller(package: Path) -> Path:
    """A caller's project in which the package is installed."""
    modules = package.parent / "caller/node_modules"
    modules.mkdir(parents=True)
    with tarfile.open(package) as archive:
        archive.extractall(package.parent, filter="data")
    shutil.move(package.parent / "package", modules / "idpass-client")
    for name in ("@grpc", "@bufbuild", "@types", "undici-types"):
        (modules / name).symlink_to(CLIENT / "node_modules" / name)
    return modules.parent


def test_the_package_has_what_belongs_there_and_nothing_else(package: Path) -> None:
    with tarfile.open(package) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
        size = sum(member.size for member in archive.getmembers())
    assert {"LICENSE", "README.md", "package.json", "dist/index.mjs", "dist/index.d.mts"} <= names
    others = {name for name in names if not re.fullmatch(r"dist/.+\.(js|mjs|d\.ts|d\.mts)", name)}
    assert others == {"LICENSE", "README.md", "package.json"}
    assert size < 1_000_000


def test_its_entry_points_are_right_for_import_and_for_require(package: Path) -> None:
    command(TOOLS / "publint", "run", package, "--strict", cwd=CLIENT)
    # node10 is left out: it does not read "exports", and no Node.js that is supported resolves so.
    command(TOOLS / "attw", package, "--profile", "node16", cwd=CLIENT)


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("a.mjs", 'import * as all from "{}";'),
        ("a.cjs", 'const all = require("{}");'),
    ],
)
def test_it_is_loaded_both_ways(caller: Path, name: str, load: str) -> None:
    show = "console.log(Object.keys(all).sort().join());"
    path = caller / name
    path.write_text(load.format("idpass-client") + show)
    told = command(NODE, path, cwd=caller).strip().split(",")
    assert {"IdPassClient", "NotFound", "VERSION", "STATUSES"} <= set(told)
    assert "default" not in told
    path.write_text(load.format("idpass-client/webhooks") + show)
    told = command(NODE, path, cwd=caller).strip().split(",")
    assert {"TOLERANCE_MS", "WebhookVerificationError", "sign", "verify"} <= set(told)


def test_import_and_require_have_the_same_classes(caller: Path) -> None:
    path = caller / "same.mjs"
    path.write_text(
        'import { createRequire } from "node:module"; import { NotFound } from "idpass-client";'
        'console.log(createRequire(import.meta.url)("idpass-client").NotFound === NotFound)'
    )
    assert command(NODE, path, cwd=caller).strip() == "true"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def compiled(caller: Path, server: RunningServer) -> Path:
    """The README's examples, each a function of what it takes as given; compiled."""
    for number, example in enumerate(EXAMPLES):
        here = example.replace("localhost:50051", server.address)
        imports = "".join(re.findall(r"^import .*\n", here, re.MULTILINE))
        body = re.sub(r"^import .*\n", "", here, flags=re.MULTILINE)
        names = [
            name for name in NAMES.split(", ") if re.search(rf"\b{name.split(':')[0]}\b", body)
        ]
        text = f"{imports}export async function run({', '.join(names)}) {{\n{body}}}\n"
        (caller / f"example{number}.mts").write_text(text)
    (program,) = blocks("ts", PAGES["languages.md"])
    (caller / "example_cancel.mts").write_text(program)
    options = {
        "target": "es2022",
        "module": "node16",
        "strict": True,
        "exactOptionalPropertyTypes": True,
        "noUncheckedIndexedAccess": True,
        "types": ["node"],
    }
    project = {"compilerOptions": options, "include": ["example*.mts"]}
    (caller / "tsconfig.json").write_text(json.dumps(project))
    command(TOOLS / "tsc", cwd=caller)
    return caller


def script(number: int, *arguments: Any) -> str:
    given = ", ".join(json.dumps(each) for each in arguments)
    return f'import {{ run }} from "./example{number}.mjs"; await run({given});'


WITHOUT_END = [number for number, example in enumerate(EXAMPLES) if "createServer" in example]
OF_FILES = [number for number, example in enumerate(EXAMPLES) if "readToken" in example]


@pytest.mark.parametrize("number", sorted({*range(len(EXAMPLES))} - {*WITHOUT_END} - {*OF_FILES}))
def test_an_example_of_the_readme_compiles_and_runs(
    compiled: Path, server: RunningServer, number: int
) -> None:
    takes = [server.put_pass()] if "passId" in EXAMPLES[number] else []
    shown = command(*(NODE, "--input-type=module", "--eval", script(number, *takes)), cwd=compiled)
    for expected in re.findall(r"console\.log\(.*\); // (.*)", EXAMPLES[number]):
        assert expected in shown


def test_the_program_on_the_page_of_languages_cancels(
    compiled: Path, server: RunningServer
) -> None:
    pass_id, ended = server.put_pass("opened"), server.put_pass("complete")
    for given, told in (
        (pass_id, "cancelled, fee refunded: true\n"),
        (pass_id, "cancelled, fee refunded: true\n"),  # the first answer again
        (ended, "refused: PASS_COMPLETE\n"),
    ):
        assert command(NODE, "example_cancel.mjs", server.address, given, cwd=compiled) == told


def test_the_example_of_credentials_makes_clients(compiled: Path) -> None:
    (number,) = OF_FILES
    code = (compiled / f"example{number}.mjs").read_text()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        assert name in code
    # The files are not there: that is told, and all before them was taken.
    load = f'import {{ run }} from "./example{number}.mjs"; '
    end = "await run(() => 't').catch((error) => console.log(error.message));"
    told = command(NODE, "--input-type=module", "--eval", load + end, cwd=compiled)
    assert told.startswith("tls: ENOENT")


def test_the_example_of_a_receiver_takes_what_is_signed(compiled: Path) -> None:
    (number,) = WITHOUT_END
    path = compiled / f"example{number}.mjs"
    ready = "listen(0, () => console.log(receiver.address().port))"
    path.write_text(path.read_text().replace("listen(3000)", ready))
    code = script(number, SECRET)
    with subprocess.Popen(
        [NODE, "--input-type=module", "--eval", code],
        cwd=compiled,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}/"
            assert post(url, SECRET) == 204
            assert post(url, OTHER) == 400
            assert process.stdout.readline() == "webhook.test msg_1 undefined\n"
        finally:
            process.kill()


def post(url: str, secret: str) -> int:
    now = int(time.time())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign(EVENT, "msg_1", now, secret),
    }
    request = urllib.request.Request(url, EVENT, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_watchers_and_calls_outlive_restarts_of_the_service() -> None:
    run_tests("restart", IDPASS_SERVER_PYTHON=COMMAND[0])
