/** A lease over what no broker of ours would say. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createRouterTransport } from "@connectrpc/connect";
import { Broker, LINK } from "../src/broker.js";
import { LeaseLostError, NoBrokerError, type ValetkeyError } from "../src/errors.js";
import { EndCause } from "../src/gen/valetkey/v1/lease_pb.js";
import { type AcquireLeaseResponseSchema, LeaseService } from "../src/gen/valetkey/v1/lease_service_pb.js";
import { thrown } from "./harness.js";

type Event = MessageInitShape<typeof AcquireLeaseResponseSchema>;

const reference = "op://a/b/c";
const opened: Event = { event: { case: "opened", value: { leaseId: "vkl_a", references: [reference] } } };
const issued: Event = { event: { case: "issued", value: { reference, handle: "vkh_a_b", handleId: "vkh_a" } } };
const ended = (cause: EndCause): Event => ({ event: { case: "ended", value: { cause } } });

/** Asks somebody who says this each time; how often, and what is thrown. */
async function asked<E extends ValetkeyError>(
  kind: new (...words: never[]) => E,
  events: Event[],
): Promise<{ error: E; times: number }> {
  let times = 0;
  const transport = createRouterTransport(({ service }) => {
    service(LeaseService, {
      async *acquireLease() {
        times += 1;
        yield* events;
      },
    });
  });
  const quiet = async () => {};
  const link = { transport, wasReached: true, isRenewable: false, ready: quiet, probe: quiet, close: () => {} };
  await using broker = new Broker({ deadline: 1, [LINK]: link } as object);
  const error = await thrown(kind, broker.lease({ a: reference }, { tool: "t", purpose: "p" }));
  return { error, times };
}

test("a lease that ends while it is opened says why, and is not asked for again", async () => {
  for (const [cause, end] of [
    [EndCause.POLICY, "policy"],
    [EndCause.CREDENTIAL, "credential"],
    [EndCause.CALLER, "caller"],
  ] as const) {
    const made: { error: LeaseLostError; times: number } = await asked(LeaseLostError, [opened, ended(cause)]);
    assert.equal(made.error.end, end);
    assert.equal(made.times, 1);
  }
});

test("what does not begin as a lease does is none", async () => {
  for (const events of [[issued], [issued, opened], [ended(EndCause.POLICY)], [opened, opened, issued]]) {
    assert.equal((await asked(NoBrokerError, events)).times, 1);
  }
});
