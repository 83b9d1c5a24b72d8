// Uses a client that openapi-typescript has generated, with openapi-fetch. Args: URL of the gateway.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Detail = components["schemas"]["Detail"];

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });

async function registered(applicant: string): Promise<string> {
  const { data } = await client.POST("/idpass/register", {
    body: { applicant_reference: applicant },
  });
  assert(data?.id_pass?.id);
  return data.id_pass.id;
}

const first = await registered("Zoë");
const second = await registered("");
await client.POST("/idpass/advance", { body: { id: first, to_status: "opened" } });

const found = await client.GET("/idpass/{id}", { params: { path: { id: first } } });
assert.equal(found.data?.id_pass?.status, "opened");
assert.equal(found.data?.id_pass?.applicant_reference, "Zoë");

const page = await client.POST("/idpass/list", { body: { statuses: ["opened"], page_size: 10 } });
assert.deepEqual(page.data?.id_passes.map((each) => each.id), [first]);

const body = { id: first, reason: "abandoned", request_id: "generated-1" } as const;
const receipt = await client.POST("/idpass/cancel", { body });
assert.equal(receipt.data?.fee_refunded, true);
assert.deepEqual(receipt.data?.refund, { currency: "AUD", amount: "4.50" });
assert.equal((await client.POST("/idpass/cancel", { body })).data?.replayed, true);

const refused = await client.POST("/idpass/cancel", { body: { id: first } });
assert.equal(refused.response.status, 400);
const details: Detail[] = refused.error?.details ?? [];
assert.equal(details.find((each) => each.reason)?.reason, "PASS_ALREADY_CANCELLED");

const batch = await client.POST("/idpass/batch-cancel", {
  body: { requests: [{ id: first }, { id: second }] },
});
assert.equal(batch.data?.cancelled_count, 1);
assert.equal(batch.data?.results.length, 2);

const account = await client.GET("/idpass/account");
assert.equal(account.data?.slots_in_use, 0);

// What the document does not have, the compiler refuses.
// @ts-expect-error a status that a pass cannot be advanced to
await client.POST("/idpass/advance", { body: { id: first, to_status: "cancelled" } });
// @ts-expect-error the id is required
await client.POST("/idpass/cancel", { body: {} });
console.log("done");
