/** The fake broker behaves as the real one does, for whoever tests with it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { DeniedError, HandleNotActiveError, LeaseLostError, UnavailableError } from "valetkey";
import { FakeBroker } from "valetkey/testing";
import { eventually, thrown } from "./harness.js";

const REFERENCE = "op://Travel/Navan/password";
const ASK = { tool: "book", purpose: "test" } as const;
const NAMES = { password: REFERENCE };

test("what is allowed is leased, and redeemed once by its tool", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, "hunter2");
  await using lease = await fake.agent().lease(NAMES, ASK);
  const { handle } = lease.get("password");
  assert.equal(handle.length, 61);
  await thrown(HandleNotActiveError, fake.tool("other").redeem(handle));
  await thrown(HandleNotActiveError, fake.agent().redeem(handle));
  assert.equal((await lease.get("password").redeem({ with: fake.tool("book") })).expose(), "hunter2");
  await thrown(HandleNotActiveError, fake.tool("book").redeem(handle));
  assert.deepEqual(
    fake.calls.map(({ kind, caller, refusal }) => [kind, caller, refusal]),
    [
      ["acquire", "agent:test", ""],
      ["redeem", "tool:other", "HANDLE_NOT_ACTIVE"],
      ["redeem", "agent:test", "HANDLE_NOT_ACTIVE"],
      ["redeem", "tool:book", ""],
      ["redeem", "tool:book", "HANDLE_NOT_ACTIVE"],
    ],
  );
});

test("what is not allowed is refused, with advice", async () => {
  await using fake = new FakeBroker().deny(REFERENCE, "ask for another");
  const agent = fake.agent();
  assert.equal((await thrown(DeniedError, agent.lease(NAMES, ASK))).advice, "ask for another");
  assert.equal((await agent.check(REFERENCE, ASK)).advice, "ask for another");
  await using lease = await agent.lease(NAMES, { ...ASK, partial: true });
  assert.throws(() => lease.get("password").handle, DeniedError);
});

test("renewals, revocations and the agent's own redeem", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, "hunter2").redeemByAgent();
  await using lease = await fake.agent().lease(NAMES, ASK);
  const first = lease.get("password").handle;
  fake.renew(REFERENCE);
  await eventually("a fresh handle", () => lease.get("password").handle !== first);
  assert.equal((await lease.get("password").redeem()).expose(), "hunter2");
  const other = await fake.agent().lease(NAMES, ASK);
  fake.revoke(REFERENCE);
  assert.equal((await other.ended)?.end, "policy");
});

test("a broker that vanishes or drains is followed, until it refuses", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, "hunter2");
  const lease = await fake.agent("test", { deadline: 5, resume: 5 }).lease(NAMES, ASK);
  const handles = new Set([lease.get("password").handle]);
  fake.vanish();
  await eventually("the lease notices", () => !lease.isLive);
  fake.comeBack();
  await lease.ready();
  handles.add(lease.get("password").handle);
  fake.drain();
  await eventually("the lease notices", () => !lease.isLive);
  await lease.ready();
  handles.add(lease.get("password").handle);
  assert.equal(handles.size, 3);
  fake.deny(REFERENCE).drain();
  assert.equal((await lease.ended)?.end, "refused");
  await thrown(LeaseLostError, lease.ready());
});

test("a lease that breaks again and again ends", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, "hunter2");
  const lease = await fake.agent().lease(NAMES, ASK);
  let breaks = 0;
  const end = lease.ended;
  const timer = setInterval(() => {
    if (!lease.isLive) return;
    breaks += 1;
    fake.drain();
  }, 5);
  const why = await end;
  clearInterval(timer);
  assert.equal(why?.end, "unavailable");
  assert.equal(breaks, 11);
});

test("a failure that is scripted comes once; what was not begun is tried again", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, "hunter2");
  fake.failNext("AUDIT_UNAVAILABLE");
  await using lease = await fake.agent().lease(NAMES, ASK);
  fake.failNext("AUDIT_UNAVAILABLE");
  assert.equal((await lease.get("password").redeem({ with: fake.tool("book") })).expose(), "hunter2");
  fake.vanish();
  const brisk = fake.agent("test", { deadline: 0.5 });
  assert.equal((await thrown(UnavailableError, brisk.check(REFERENCE, ASK))).nothingDone, true);
});
