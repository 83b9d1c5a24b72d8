/** A caller's file for the type checker: each line under a mark is wrong, and is told so. */

import {
  AlreadyCancelled,
  type Event,
  IdPassClient,
  type Money,
  type Receipt,
} from "idpass-client";
import { verify, type WebhookEvent } from "idpass-client/webhooks";

export async function call(client: IdPassClient, id: string): Promise<void> {
  const receipt: Receipt = await client.cancel(id, { reason: "abandoned", expectedStatus: "new" });
  const refunded: boolean = receipt.feeRefunded;
  const refund: Money | null = receipt.refund;
  const amount: string | undefined = refund?.amount;
  const time: Date = receipt.cancelTime;
  console.log(refunded, amount, time);
  // @ts-expect-error: no such member
  receipt.fee_refunded;
  // @ts-expect-error: records do not change
  receipt.feeRefunded = true;
  // @ts-expect-error: there may be none
  receipt.refund.amount;
  // @ts-expect-error: not a reason
  client.cancel(id, { reason: "bored" });
  // @ts-expect-error: not an option
  client.cancel(id, { request_id: "a" });
  // @ts-expect-error: not an id
  client.cancel(7);
  // @ts-expect-error: not a status
  client.advance(id, "open");
}

export async function iterate(client: IdPassClient, ids: AsyncIterable<string>): Promise<void> {
  for await (const event of client.watch()) {
    const known: Event = event;
    console.log(known.sequence + 1, event.toStatus === "cancelled", event.refund?.currency);
  }
  for await (const result of client.cancelMany(ids)) {
    if (result.error) {
      // @ts-expect-error: there is none beside an error
      result.receipt.id;
    } else {
      console.log(result.receipt.id);
    }
  }
}

export function refusal(error: unknown): boolean {
  return error instanceof AlreadyCancelled && error.feeRefunded;
}

export function close(address: string, body: Uint8Array, headers: Headers): WebhookEvent {
  using client = new IdPassClient(address, { token: async () => "t", tls: true });
  console.log(client);
  // @ts-expect-error: the headers are missing
  verify(body, "whsec_");
  return verify(body, headers, ["whsec_a", "whsec_b"], { toleranceMs: 1_000 });
}
