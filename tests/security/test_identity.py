"""Who may call: the callers file, its mistakes, and what changes when it is read again."""

import asyncio
import hashlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from idpass.v1.id_pass_service_pb2 import GetAccountRequest
from idpass_server.api.identity import Caller, KnownCallers, Permission
from idpass_server.hosting import callers
from idpass_server.hosting.callers import BadCallers
from idpass_server.rules.refusals import Unauthenticated
from kit.guarded import Guarded, caller, digest
from kit.support import STATUS, bearer, cli, make_accounts, process, refused

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DIGEST = hashlib.sha256(b"open sesame").hexdigest()
GOOD = f'account = "acme"\npermissions = ["read"]\ntoken_sha256 = "{DIGEST}"\n'


# -- the file

MISTAKES = [
    # (file, line, what the reason says)
    ("", 0, "has no caller"),
    ("[callers]\n", 0, "has no caller"),
    ("\n[callers.ann\n", 2, "is not TOML"),
    (f"[callers.ann]\n{GOOD}[callers.ann]\n", 5, "is not TOML"),
    (f"[callers.ann]\n{GOOD}account = 'acme'\n", 5, "is not TOML"),
    ("ours = " + "[" * 3_000, 0, "is nested too deeply"),
    (f"[callers.ann]\n{GOOD}rate = {'1' * 5_000}\n", 0, "has a number with thousands of digits"),
    (f"title = 'ours'\n[callers.ann]\n{GOOD}", 1, "unknown key 'title'"),
    (f"[callers.ann]\n{GOOD}[caller.bob]\n", 5, "unknown key 'caller'"),
    ("[[callers]]\n", 1, "callers are tables"),
    ("\ncallers = 3\n", 2, "callers are tables"),
    ("[callers]\nann = 3\n", 2, "caller 'ann' is not a table"),
    (f"[callers.ann]\n{GOOD}token_sha265 = 'x'\n", 5, "unknown key 'token_sha265'"),
    (f"[callers.ann]\n{GOOD}[callers.ann.limits]\n", 1, "unknown key 'limits'"),
    (f"\n\n[callers.Ann]\n{GOOD}", 3, "caller 'Ann' is not 1 to 63"),
    (f"[callers.'a b']\n{GOOD}", 1, "caller 'a b' is not 1 to 63"),
    (f"[callers.sweeper]\n{GOOD}", 1, "'sweeper' is the service's own"),
    (GOOD.replace('account = "acme"', "[callers.ann]"), 1, "has no account"),
    (f"[callers.ann]\n{GOOD.replace('acme', 'acmee')}", 2, "there is no account 'acmee'"),
    (f"[callers.ann]\n{GOOD.replace('acme', 'A!')}", 2, "there is no account 'A!'"),
    (f"[callers.ann]\n{GOOD.replace(chr(34) + 'acme' + chr(34), '7')}", 2, "is not a string"),
    (GOOD.replace("permissions", "[callers.ann]\npermission"), 1, "unknown key 'account'"),
    (f"[callers.ann]\n{GOOD}".replace('permissions = ["read"]', ""), 1, "has no permissions"),
    (f"[callers.ann]\n{GOOD}".replace('["read"]', "[]"), 3, "permissions is not a list"),
    (f"[callers.ann]\n{GOOD}".replace('["read"]', '"read"'), 3, "permissions is not a list"),
    (f"[callers.ann]\n{GOOD}".replace('"read"', '"raed"'), 3, "unknown permission 'raed'"),
    (f"[callers.ann]\n{GOOD}".replace('"read"', '"read",\n\n"all"'), 5, "unknown permission 'all'"),
    (f"[callers.ann]\n{GOOD}".replace('"read"', "3"), 3, "unknown permission 3"),
    (f"[callers.ann]\n{GOOD}".replace("token_sha256", "#"), 1, "has no credential"),
    (f"[callers.ann]\n{GOOD}".replace(DIGEST, "open sesame"), 4, "not 64 hex digits but 11"),
    (f"[callers.ann]\n{GOOD}".replace(f'"{DIGEST}"', "[]"), 4, "neither a string nor a list"),
    (f"[callers.ann]\n{GOOD}".replace(f'"{DIGEST}"', "[1]"), 4, "neither a string nor a list"),
    (f"[callers.ann]\n{GOOD}spiffe_id = 'https://a/b'\n", 5, "is not a SPIFFE ID"),
    (f"[callers.ann]\n{GOOD}spiffe_id = 'spiffe://A/b'\n", 5, "is not a SPIFFE ID"),
    (f"[callers.ann]\n{GOOD}spiffe_id = 'spiffe://a/b/'\n", 5, "is not a SPIFFE ID"),
    (f"[callers.ann]\n{GOOD}spiffe_id = 'spiffe://a/../b'\n", 5, "is not a SPIFFE ID"),
    (f"[callers.ann]\n{GOOD}spiffe_id = 'spiffe://a/{'b' * 2040}'\n", 5, "is not a SPIFFE ID"),
    (f"[callers.ann]\n{GOOD}spiffe_id = ['spiffe://a/b',\n'spiffe://a/b']", 6, "(line 5)"),
    (f"[callers.ann]\n{GOOD}[callers.bob]\n{GOOD}", 8, "belongs to caller 'ann' (line 4)"),
    (
        f"[callers.ann]\n{GOOD}[callers.bob]\n{GOOD.replace(DIGEST, DIGEST.upper())}",
        8,
        "belongs to caller 'ann' (line 4)",
    ),
    (f"[callers.ann]\n{GOOD}rate = -1\n", 5, "rate is not a number of 0 or more"),
    (f"[callers.ann]\n{GOOD}rate = nan\n", 5, "rate is not a number of 0 or more"),
    (f"[callers.ann]\n{GOOD}rate = inf\n", 5, "rate is not a number of 0 or more"),
    (f"[callers.ann]\n{GOOD}rate = '9'\n", 5, "rate is not a number of 0 or more"),
    (f"[callers.ann]\n{GOOD}rate = 9\nburst = 0\n", 6, "burst is not a whole number of 1 or more"),
    (f"[callers.ann]\n{GOOD}burst = 1.5\n", 5, "burst is not a whole number of 1 or more"),
    (f"[callers.ann]\n{GOOD}burst = true\n", 5, "burst is not a whole number of 1 or more"),
    (f"# \u2028 \x85\n[callers.ann]\n{GOOD}spiffe_id = 'sesame'\n", 6, "is not a SPIFFE ID"),
    # What is written in another way is told the nearest line.
    ("[callers]\n\n'ann' = { account = 'x', permissions = ['read'] }\n", 3, "no account 'x'"),
    ("callers.ann.account = 'acme'\n", 1, "has no credential"),
]


@pytest.mark.parametrize(("text", "line", "reason"), MISTAKES)
def test_a_mistake_in_the_file_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(text)
    with pytest.raises(BadCallers) as caught:
        callers.read(file, lambda account: account == "acme")
    (found,) = [told for told in caught.value.mistakes if reason in told.reason]
    assert found.line == line
    assert DIGEST not in str(caught.value).lower()
    assert "sesame" not in str(caught.value)


def test_all_mistakes_stop_the_start_each_in_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(f"[callers.ann]\n{GOOD}[callers.bob]\n{GOOD.replace('read', 'write')}")
    db = tmp_path / "idpass.db"
    done = cli(
        *("serve", "--listen", "127.0.0.1:0", "--db", f"sqlite:///{db}", "--create"),
        *("--callers", str(file)),
    )
    assert done.returncode == 1
    *_, first, second, third, fourth = done.stderr.replace("Error: ", "").splitlines()
    assert first.startswith(f"{file}:2: there is no account 'acme'; create it with: idpass-server")
    assert second.startswith(f"{file}:6: there is no account 'acme'")
    assert third.startswith(f"{file}:7: unknown permission 'write'; there are register, read")
    assert fourth == f"{file}:8: this token_sha256 already belongs to caller 'ann' (line 4)"


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path / 'idpass.db'}"
    done = cli(
        "serve", "--listen", "127.0.0.1:0", "--db", db, "--create", "--callers", "nobody.toml"
    )
    assert done.returncode == 1
    assert "nobody.toml: cannot be read (No such file or directory)" in done.stderr


@pytest.mark.parametrize(("mode", "good"), [(0o664, False), (0o646, False), (0o644, True)])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int, good: bool) -> None:
    folder = tmp_path / "..data"
    folder.mkdir()
    (folder / "callers.toml").write_text(f"[callers.ann]\n{GOOD}")
    (folder / "callers.toml").chmod(mode)
    link = tmp_path / "callers.toml"
    link.symlink_to(folder / "callers.toml")  # as Kubernetes mounts secrets
    if good:
        assert callers.read(link, lambda _: True).total == 1
    else:
        with pytest.raises(BadCallers, match=f"can be written by other users .mode {mode:04o}."):
            callers.read(link, lambda _: True)


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_bytes(b"# caf\xc3\xa9\n\n# caf\xe9\n")
    with pytest.raises(BadCallers, match=r"callers.toml:3: is not UTF-8"):
        callers.read(file, lambda _: True)


def test_a_caller_may_have_several_credentials(tmp_path: Path) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(
        '[callers.ann]\naccount = "acme"\npermissions = ["read", "cancel"]\n'
        f'token_sha256 = ["{digest("old")}", "{digest("new").upper()}"]\n'
        'spiffe_id = ["spiffe://example.org/ann", "spiffe://example.org/ns/x/sa/ann.2"]\n'
    )
    found = callers.read(file, lambda _: True)
    assert {name for name, _ in found.by_token} == {
        hashlib.sha256(token).digest() for token in (b"old", b"new")
    }
    assert set(found.by_spiffe_id) == {
        b"spiffe://example.org/ann",
        b"spiffe://example.org/ns/x/sa/ann.2",
    }
    (ann,) = {*found.by_spiffe_id.values(), *(caller for _, caller in found.by_token)}
    assert ann == Caller("ann", "acme", frozenset({Permission.READ, Permission.CANCEL}))


# -- calls


def test_a_token_says_who_calls_and_for_which_account(guarded: Guarded) -> None:
    ann, bob = guarded.with_token("ann-token"), guarded.with_token("bob-token")
    assert (ann.account().id, bob.account().id) == ("acme", "beta")
    assert ann.get(ann.register().id_pass.id).caller == "ann"


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_the_scheme_is_read_in_any_case(guarded: Guarded, scheme: str) -> None:
    answer = guarded.stub.GetAccount(
        GetAccountRequest(), metadata=(("authorization", f"{scheme}ann-token"),)
    )
    assert answer.id == "acme"


MALFORMED = [
    (),
    (("authorization", ""),),
    (("authorization", "Bearer"),),
    (("authorization", "Bearer "),),
    (("authorization", "ann-token"),),
    (("authorization", "Basic ann-token"),),
    (("authorization", "Bearer ann-token,bob-token"),),
    (("authorization", "Bearer ann-token bob-token"),),
    (("authorization", f"Bearer {digest('ann-token')}"),),
    (*bearer("ann-token"), *bearer("ann-token")),
    (*bearer("ann-token"), *bearer("bob-token")),
    (*bearer("nobody"), *bearer("ann-token")),
    (("authorization-bin", b"Bearer ann-token"),),
    (("proxy-authorization", "Bearer ann-token"),),
]


@pytest.mark.parametrize("metadata", MALFORMED)
def test_without_one_known_token_nobody_gets_in_and_nobody_is_told_why(
    guarded: Guarded, metadata: tuple[tuple[str, str], ...]
) -> None:
    error = refused(lambda: guarded.stub.GetAccount(GetAccountRequest(), metadata=metadata))
    assert (error.code, error.reason) == (UNAUTHENTICATED, "UNAUTHENTICATED_CALLER")
    unknown = refused(guarded.with_token("nobody").account)
    assert (error.message, error.metadata) == (unknown.message, unknown.metadata)
    assert "authorization: Bearer TOKEN" in error.message


NAME = b"spiffe://example.org/ann"
CERTIFICATE = {"x509_pem_cert": [b"-----BEGIN"], "transport_security_type": [b"ssl"]}


class Context:
    """A call, as far as identity looks at it, with gRPC's own names for what a certificate says."""

    def __init__(self, names: list[bytes] | None, token: str | None) -> None:
        self._peer: dict[str, list[bytes]] = {"transport_security_type": [b"ssl"]}
        if names is not None:
            self._peer = CERTIFICATE | ({"peer_uri": names} if names else {})
        self._metadata = bearer(token) if token is not None else ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._peer

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


@pytest.mark.parametrize(
    ("names", "token", "who"),
    [
        ([NAME], None, "ann"),
        ([NAME], "bob-token", "bob"),  # a token that is sent decides
        ([NAME], "nobody", None),
        ([b"spiffe://example.org/unknown"], None, None),
        ([b"spiffe://example.com/ann"], None, None),  # another trust domain
        ([b"https://example.org/ann"], None, None),
        ([b"https://example.org/bob"], "bob-token", "bob"),
        ([NAME, NAME], None, None),
        ([NAME, b"spiffe://example.org/unknown"], None, None),
        ([NAME, b"https://example.org"], "bob-token", "bob"),  # whatever the certificate says
        ([], None, None),
        ([], "bob-token", "bob"),
        (None, None, None),  # TLS without a client's certificate
        (None, "bob-token", "bob"),
    ],
)
def test_a_certificate_says_who_calls_by_its_one_uri_name(
    tmp_path: Path, names: list[bytes] | None, token: str | None, who: str | None
) -> None:
    file = tmp_path / "callers.toml"
    ann = caller("ann").replace("token_sha256", f"spiffe_id = '{NAME.decode()}'\ntoken_sha256")
    file.write_text(ann + caller("bob", "beta"))
    known = KnownCallers(callers.read(file, lambda _: True), client_certificates=True)
    if who is None:
        with pytest.raises(Unauthenticated):
            known.caller(Context(names, token))
    else:
        assert known.caller(Context(names, token)).name == who


def test_a_token_is_made_with_the_line_for_the_file(tmp_path: Path) -> None:
    made = cli("token")
    token, line = made.stdout.strip(), made.stderr.strip()
    assert len(token) == 43
    assert token != cli("token").stdout.strip()
    server = Guarded(tmp_path, f'[callers.ann]\naccount = "acme"\npermissions = ["read"]\n{line}\n')
    assert server.with_token(token).account().id == "acme"
    server.stop()


# -- a file that is read again


def test_a_caller_that_was_removed_is_refused_at_its_next_call(guarded: Guarded) -> None:
    ann, eve = guarded.with_token("ann-token"), guarded.with_token("eve-token")
    pass_id = ann.register().id_pass.id
    guarded.reload(caller("eve", "acme", "read"))
    assert refused(ann.account).code == UNAUTHENTICATED
    assert eve.get(pass_id).caller == "ann"


def test_a_permission_that_was_taken_away_is_missing_at_the_next_call(guarded: Guarded) -> None:
    ann = guarded.with_token("ann-token")
    pass_id = ann.register().id_pass.id
    guarded.reload(caller("ann", "acme", "read"))
    error = refused(lambda: ann.cancel(pass_id))
    assert (error.code, error.metadata) == (
        grpc.StatusCode.PERMISSION_DENIED,
        {"permission": "cancel"},
    )
    assert ann.get(pass_id).status == STATUS["new"]


@pytest.mark.parametrize(
    ("tables", "code"),
    [
        ([caller("bob", "beta")], UNAUTHENTICATED),
        ([caller("ann").replace(digest("ann-token"), digest("another"))], UNAUTHENTICATED),
        ([caller("ann", "beta")], UNAUTHENTICATED),
        ([caller("ann", "acme", "read")], grpc.StatusCode.PERMISSION_DENIED),
    ],
    ids=["caller removed", "token revoked", "account changed", "permission lost"],
)
@pytest.mark.parametrize("idle", [True, False], ids=["idle", "with events on their way"])
def test_an_open_stream_ends_when_its_caller_may_no_longer_watch(
    guarded: Guarded, tables: list[str], code: grpc.StatusCode, idle: bool
) -> None:
    ann = guarded.with_token("ann-token")
    for _ in range(1 if idle else 300):
        ann.register()
    stream = ann.watch()
    assert next(stream).sequence == 1
    guarded.reload(*tables)

    def to_the_end() -> None:
        for _ in stream:
            pass

    assert refused(to_the_end).code == code


def test_not_one_event_more_is_sent_to_whoever_may_no_longer_watch(guarded: Guarded) -> None:
    for _ in range(10):
        guarded.with_token("ann-token").register()
    seen: list[int] = []

    def still_admitted() -> None:
        if len(seen) == 3:
            raise Unauthenticated

    async def watch() -> None:
        watchers = guarded.server._watchers
        async for event in watchers.follow("acme", 0, 10, None, still_admitted):
            seen.append(event.sequence)  # noqa: PERF401 looked at meanwhile

    with pytest.raises(Unauthenticated):
        asyncio.run_coroutine_threadsafe(watch(), guarded.loop).result(timeout=30)
    assert seen == [1, 2, 3]


def test_an_open_stream_of_one_who_may_still_watch_goes_on(guarded: Guarded) -> None:
    ann = guarded.with_token("ann-token")
    stream = ann.watch()
    for sequence in range(1, 4):
        ann.register()
        assert next(stream).sequence == sequence
        guarded.reload(caller("ann", "acme", "register watch"), caller(f"new-{sequence}"))
    stream.cancel()


def test_a_broken_file_leaves_the_former_one_in_force(guarded: Guarded) -> None:
    ann = guarded.with_token("ann-token")
    for broken in ("[callers.ann", "", caller("ann", "nowhere"), caller("ann", "acme", "all")):
        guarded.reload(broken)
        assert ann.account().id == "acme"
    guarded.file.unlink()
    guarded.read_again()
    assert ann.account().id == "acme"
    guarded.reload(caller("zoe"))
    assert refused(ann.account).code == UNAUTHENTICATED
    assert guarded.with_token("zoe-token").account().id == "acme"


def test_an_account_made_meanwhile_is_known_when_the_file_is_read_again(guarded: Guarded) -> None:
    guarded.reload(caller("zoe", "gamma"))
    assert refused(guarded.with_token("zoe-token").account).code == UNAUTHENTICATED
    make_accounts(guarded.url, "gamma")
    guarded.reload(caller("zoe", "gamma"))
    assert guarded.with_token("zoe-token").account().id == "gamma"


def test_a_file_is_read_again_on_sighup_and_when_it_changes_and_the_log_tells(
    tmp_path: Path,
) -> None:
    file, db = tmp_path / "callers.toml", tmp_path / "idpass.db"
    make_accounts(db, "acme")
    file.write_text(caller("ann") + caller("bob"))
    with process(db, "--callers", str(file)) as server:
        loaded = server.wait_for("callers_loaded")
        assert (loaded["callers"], loaded["tokens"], loaded["spiffe_ids"]) == (2, 2, 0)
        ann = server.with_token("ann-token")
        assert ann.account().id == "acme"

        # Written in place, or put in its place as deployments do.
        file.write_text(caller("ann") + "[callers.bob]\ntoken_sha256 = 'my-secret'\n")
        rejected = server.wait_for("callers_rejected")
        assert rejected["level"] == "error"
        assert rejected["reasons"][-1].startswith(f"{file}:6: ")
        assert ann.account().id == "acme"

        other = tmp_path / "other.toml"
        other.write_text(caller("zoe"))
        other.rename(file)
        server.wait_for("callers_loaded", count=2)
        assert refused(ann.account).code == UNAUTHENTICATED
        assert server.with_token("zoe-token").account().id == "acme"

        server.signal(signal.SIGHUP)
        server.wait_for("callers_loaded", count=3)
        assert server.with_token("zoe-token").account().id == "acme"
        server.signal()
        assert server.wait() == 0
    text = str(server.log)
    for secret in ("my-secret", "zoe-token", digest("zoe-token"), digest("ann-token")):
        assert secret not in text


def test_no_call_is_dropped_while_the_file_is_read_again(guarded: Guarded) -> None:
    ann = guarded.with_token("ann-token")
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(ann.register) for _ in range(400)]
        for number in range(20):
            guarded.reload(caller("ann"), caller(f"other-{number}"))
        for call in calls:
            call.result()
    assert ann.account().last_sequence == 400


def test_a_callers_file_that_cannot_be_read_to_its_end_holds_up_neither_calls_nor_the_stop(
    tmp_path: Path,
) -> None:
    file = tmp_path / "callers.toml"
    file.write_text(caller("ann"))
    make_accounts(tmp_path / "idpass.db", "acme", "beta")
    with process(tmp_path / "idpass.db", "--callers", str(file)) as server:
        ann = server.with_token("ann-token")
        file.unlink()
        os.mkfifo(file, 0o600)  # whoever opens it to read waits for a writer
        server.signal(signal.SIGHUP)
        writer = os.open(file, os.O_WRONLY)  # once it is being read
        assert ann.account().id == "acme"
        server.signal()
        assert server.wait() == 0
        os.close(writer)
