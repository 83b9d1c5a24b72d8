/** Receivers of webhooks: what `verify` takes and what it refuses. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { sign, verify, WebhookVerificationError } from "idpass-client/webhooks";

const secretOf = (letter: string) => `whsec_${Buffer.from(letter.repeat(32)).toString("base64")}`;
const SECRET = secretOf("s");
const OTHER = secretOf("o");
const PASS_ID = "01932c07-0000-7000-8000-000000000001";
const EVENT = {
  sequence: 42,
  id_pass_id: PASS_ID,
  from_status: "opened",
  to_status: "cancelled",
  event_time: "2026-11-25T09:30:00.123456Z",
  caller: "billing",
  request_id: "r-1",
  refund: { currency: "AUD", amount: "4.50" },
  reason: "abandoned",
  erased: false,
  reference: "01932c07-0000-7000-8000-00000000000f",
};
const PASS = {
  id: PASS_ID,
  account: "acme",
  status: "cancelled",
  fee: { currency: "AUD", amount: "4.50" },
  fee_refunded: true,
  applicant_reference: "Zoë <b>",
  create_time: "2026-11-25T09:30:00Z",
  update_time: "2026-11-25T09:30:00.120Z",
  expire_time: "2026-12-02T09:30:00Z",
  end_time: "2026-11-25T09:30:00.120Z",
  cancellation: {
    reason: "abandoned",
    note: "no answer\nfor a week",
    cancel_time: "2026-11-25T09:30:00.120Z",
    caller: "billing",
  },
  caller: "billing",
};

function payload(data: object, type = "id_pass.cancelled"): string {
  return JSON.stringify({ type, timestamp: "2026-11-25T09:30:00.123456Z", data });
}

const BODY = payload({ history: "h-1", event: EVENT, id_pass: PASS });
const now = () => Math.floor(Date.now() / 1000);

function headers(body: string | Uint8Array = BODY, at = now(), ...secrets: string[]) {
  const signatures = (secrets.length ? secrets : [SECRET]).map((each) =>
    sign(body, "msg_1", at, each),
  );
  return {
    "Webhook-Id": "msg_1",
    "Webhook-Timestamp": String(at),
    "Webhook-Signature": signatures.join(" "),
  };
}

test("the signature is that of Standard Webhooks", () => {
  // Its own example, https://github.com/standard-webhooks/standard-webhooks
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const made = sign('{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, secret);
  assert.equal(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
});

test("a signed event is read", () => {
  for (const given of [headers(), new Headers(headers())]) {
    const webhook = verify(Buffer.from(BODY), given, SECRET);
    assert.deepEqual(
      [webhook.messageId, webhook.type, webhook.history],
      ["msg_1", "id_pass.cancelled", "h-1"],
    );
    assert.deepEqual(webhook.event, {
      sequence: 42,
      id: PASS_ID,
      fromStatus: "opened",
      toStatus: "cancelled",
      eventTime: new Date("2026-11-25T09:30:00.123Z"),
      caller: "billing",
      requestId: "r-1",
      refund: { currency: "AUD", amount: "4.50" },
      reason: "abandoned",
      erased: false,
      reference: "01932c07-0000-7000-8000-00000000000f",
    });
    assert.equal(webhook.idPass?.applicantReference, "Zoë <b>");
    assert.equal(webhook.idPass?.cancellation?.note, "no answer\nfor a week");
    assert.deepEqual([webhook.idPass?.consentTime, webhook.idPass?.supersededBy], [null, null]);
  }
});

test("either secret will do while one is rotated", () => {
  const both = headers(BODY, now(), OTHER, SECRET);
  assert.ok(verify(BODY, both, SECRET).event);
  assert.ok(verify(BODY, both, OTHER).event);
  assert.ok(verify(BODY, headers(), [OTHER, SECRET]).event);
  const several = { ...headers(), "Webhook-Signature": both["Webhook-Signature"].split(" ") };
  assert.ok(verify(BODY, several, SECRET).event);
});

test("a type and a status of a newer service are read as far as they go", () => {
  const closed = payload({ history: "h-1", what: "else" }, "account.closed");
  const webhook = verify(closed, headers(closed), SECRET);
  assert.deepEqual([webhook.type, webhook.event, webhook.idPass], ["account.closed", null, null]);
  assert.equal(webhook.data.what, "else");
  const suspended = payload({ history: "h-1", event: { ...EVENT, to_status: "suspended" } });
  assert.equal(verify(suspended, headers(suspended), SECRET).event?.toStatus, "suspended");
});

const signed = (body: string | Uint8Array) => [body, headers(body)] as const;
const but = (changed: object) => [BODY, { ...headers(), ...changed }] as const;
const UNTRUSTED: [string, () => readonly [string | Uint8Array, Record<string, string>], RegExp][] =
  [
    ["another body", () => [`${BODY} `, headers()], /no signature fits/],
    ["another secret", () => [BODY, headers(BODY, now(), OTHER)], /no signature fits/],
    ["another id", () => but({ "Webhook-Id": "msg_2" }), /no signature fits/],
    ["an empty signature", () => but({ "Webhook-Signature": "v1," }), /no signature fits/],
    [
      "a signature of other letters",
      () => but({ "Webhook-Signature": "v1,é" }),
      /no signature fits/,
    ],
    [
      "a signature without version",
      () => but({ "Webhook-Signature": headers()["Webhook-Signature"].slice(3) }),
      /no signature fits/,
    ],
    ["no id", () => but({ "Webhook-Id": "" }), /webhook-id is missing/],
    ["no timestamp", () => but({ "Webhook-Timestamp": undefined }), /webhook-timestamp is missing/],
    ["no signature", () => but({ "Webhook-Signature": "" }), /webhook-signature is missing/],
    ["a time in words", () => but({ "Webhook-Timestamp": "now" }), /not a number of seconds/],
    [
      "a time for ever",
      () => but({ "Webhook-Timestamp": "9".repeat(400) }),
      /not a number of seconds/,
    ],
    ["a time in other digits", () => but({ "Webhook-Timestamp": "٣" }), /not a number of seconds/],
    ["an old request", () => [BODY, headers(BODY, now() - 400)], /40[0-9] s ago.*may be a replay/],
    ["a request from later", () => [BODY, headers(BODY, now() + 400)], /from now/],
    ["a list", () => signed("[]"), /not one that this version can read/],
    ["no text", () => signed(Buffer.from([255])), /not one that this version can read/],
    ["an empty event", () => signed(payload({ event: {} })), /can read/],
    ["a number for an event", () => signed(payload({ event: 3 })), /can read/],
  ];
for (const [what, given, says] of UNTRUSTED) {
  test(`what is not to be trusted is refused and says why: ${what}`, () => {
    const [body, withHeaders] = given();
    assert.throws(
      () => verify(body, withHeaders, SECRET),
      (error: unknown) => {
        assert.ok(error instanceof WebhookVerificationError);
        assert.match(error.message, says);
        return true;
      },
    );
  });
}

test("the tolerance is the receiver's to choose", () => {
  const old = headers(BODY, now() - 400);
  assert.ok(verify(BODY, old, SECRET, { toleranceMs: 3_600_000 }).event);
});

for (const secret of ["", "whsec_", "whsec_!!", "s".repeat(40)]) {
  test(`a malformed secret is named without being shown: ${secret.slice(0, 8)}`, () => {
    assert.throws(
      () => verify(BODY, headers(), secret),
      (error: unknown) => {
        assert.ok(error instanceof TypeError && !(error instanceof WebhookVerificationError));
        assert.match(error.message, /the secret is not whsec_/);
        assert.ok("whsec_".includes(secret) || !error.message.includes(secret));
        return true;
      },
    );
  });
}

test("a parsed body is refused", () => {
  assert.throws(
    () => verify(JSON.parse(BODY), headers(), SECRET),
    /the body is object; pass it as it came/,
  );
});
