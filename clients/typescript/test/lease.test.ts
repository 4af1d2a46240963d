import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { inspect } from "node:util";
import {
  type Broker,
  DeniedError,
  HandleNotActiveError,
  InvalidRequestError,
  LeaseLostError,
  NotFoundError,
  PreconditionError,
  UnauthenticatedError,
} from "valetkey";
import { BOOKING, eventually, NAVAN, NAVAN_PASSWORD, shown, TestBroker, thrown } from "./harness.js";

let test_broker: TestBroker;
let agent: Broker;
let tool: Broker;

before(async () => {
  test_broker = await TestBroker.start();
  agent = test_broker.as("travel-bot");
  tool = test_broker.as("navan.book_flight");
});

after(async () => {
  await agent.close();
  await tool.close();
  await test_broker[Symbol.asyncDispose]();
});

test("a handle for the model, a value for the tool, and an end", async () => {
  let handle: string;
  {
    await using lease = await agent.lease(NAVAN, BOOKING);
    const password = lease.get("password");
    handle = password.handle;
    assert.match(handle, /^vkh_[0-9a-v]+_[0-9a-v]+$/);
    assert.ok(handle.startsWith(`${password.handleId}_`));
    assert.equal(password.redeemer, "tool");
    assert.match(lease.id, /^vkl_/);
    assert.equal((await tool.redeem(handle)).expose(), NAVAN_PASSWORD);
    assert.equal((await lease.get("username").redeem({ with: tool })).expose(), "demo-navan-user@travel.example");
    assert.equal(lease.revoked.aborted, false);
  }
  await thrown(HandleNotActiveError, tool.redeem(handle));
});

test("releasing kills what was not redeemed, at once", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  await lease.release();
  await lease.release();
  await thrown(HandleNotActiveError, tool.redeem(handle));
  assert.throws(() => lease.get("password").handle, LeaseLostError);
  await thrown(LeaseLostError, lease.get("password").redeem({ with: tool }));
  assert.equal(await lease.ended, undefined);
  assert.equal(lease.revoked.aborted, false);
});

test("a second redeem is refused without asking, and a replay by the broker", async () => {
  await using lease = await agent.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  await lease.get("password").redeem({ with: tool });
  await thrown(HandleNotActiveError, lease.get("password").redeem({ with: tool }));
  assert.throws(() => lease.get("password").handle, /redeemed already/);
  await thrown(HandleNotActiveError, tool.redeem(handle));
});

test("the holder alone cannot redeem a tool's handle, and another tool neither", async () => {
  await using lease = await agent.lease(NAVAN, BOOKING);
  const error = await thrown(PreconditionError, lease.get("password").redeem());
  assert.match(error.message, /navan\.book_flight/);
  await using other = test_broker.as("web.search");
  await thrown(HandleNotActiveError, lease.get("password").redeem({ with: other }));
  assert.equal((await lease.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
});

test("a refusal says what to do, and which record has more", async () => {
  const card = { number: "op://Tutorial/Travel Card/number" };
  const denied = await thrown(DeniedError, agent.lease(card, { ...BOOKING, tool: "web.search" }));
  assert.equal(denied.reason, "ACCESS_DENIED");
  assert.match(denied.advice ?? "", /ask for it with tool navan\.book_flight/);
  assert.match(denied.recordId ?? "", /^\d+$/);
  assert.equal(denied.reference, card.number);
  assert.match(denied.message, /^access denied for `op:.*; the card may only be used .* \(audit record \d+\)$/);
  assert.match(test_broker.audit(`agent:travel-bot decision:deny`), /web\.search/);
});

test("what is wrong with a request is said, all of it", async () => {
  const error = await thrown(
    InvalidRequestError,
    agent.lease({ a: "op://x", b: "nonsense" }, { ...BOOKING, tool: "" }),
  );
  assert.ok(error.violations.length >= 3, inspect(error.violations));
  await thrown(InvalidRequestError, agent.lease({}, BOOKING));
  await thrown(InvalidRequestError, agent.lease(NAVAN, { ...BOOKING, ttl: Number.NaN }));
  await thrown(InvalidRequestError, agent.lease(NAVAN, { ...BOOKING, ttl: 3600 }));
  await thrown(DeniedError, agent.lease({ item: "op://Tutorial/Nobody/password" }, BOOKING));
  await thrown(InvalidRequestError, tool.redeem("vkh_nonsense"));
});

test("an allowed reference that names nothing is not found", async () => {
  test_broker.policy("travel.cedar", (text) => `${text}\n${ALL_OF_TUTORIAL}`);
  await eventuallyRejects(NotFoundError, () => agent.lease({ no: "op://Tutorial/Nobody/password" }, BOOKING));
});

test("partial leases have what is allowed, and say why the rest is missing", async () => {
  const references = { password: NAVAN.password, database: "op://Production/Database/password" };
  await thrown(DeniedError, agent.lease(references, BOOKING));
  await using lease = await agent.lease(references, { ...BOOKING, partial: true });
  assert.throws(() => lease.get("database").handle, DeniedError);
  assert.ok(lease.get("database").failure instanceof DeniedError);
  assert.equal((await lease.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
});

test("a check is an answer, not an error", async () => {
  const allowed = await agent.check(NAVAN.password, { tool: BOOKING.tool });
  assert.equal(allowed.allowed, true);
  assert.equal(allowed.redeemer, "tool");
  const refused = await agent.check("op://Tutorial/Travel Card/number", { tool: "web.search" });
  assert.equal(refused.allowed, false);
  assert.match(refused.advice, /navan\.book_flight/);
});

test("handles are renewed, and the one given out is always alive", async () => {
  await using lease = await agent.lease(NAVAN, { ...BOOKING, ttl: 2 });
  const seen = new Set<string>();
  await eventually("three handles", () => shown(lease, seen) >= 3);
  const first = [...seen][0] ?? "";
  assert.equal(lease.find(first)?.reference, NAVAN.password);
  assert.equal(lease.find("vkh_x_y"), undefined);
  await eventuallyRejects(HandleNotActiveError, () => tool.redeem(first));
  assert.equal((await lease.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
});

test("nobody's token is nobody", async () => {
  await using nobody = test_broker.as("travel-bot", { token: "vkt_aaaaaaaaaaaaaaaa_bbbb" });
  await thrown(UnauthenticatedError, nobody.lease(NAVAN, BOOKING));
  const person = { ...BOOKING, onBehalfOf: "not.a.token" };
  const error = await thrown(UnauthenticatedError, agent.lease(NAVAN, person));
  assert.equal(error.reason, "PERSON_UNAUTHENTICATED");
});

test("a signal gives up, and releases what is open", async () => {
  const gone = AbortSignal.abort(new Error("changed my mind"));
  assert.equal((await thrown(Error, agent.lease(NAVAN, { ...BOOKING, signal: gone }))).message, "changed my mind");
  const control = new AbortController();
  const lease = await agent.lease(NAVAN, { ...BOOKING, signal: control.signal });
  const { handle } = lease.get("password");
  control.abort();
  assert.equal(await lease.ended, undefined);
  await eventuallyRejects(HandleNotActiveError, () => tool.redeem(handle));
});

test("a lease shows no handle by itself", async () => {
  await using lease = await agent.lease(NAVAN, BOOKING);
  const shown = inspect(lease, { depth: 9, showHidden: true }) + inspect(lease.get("password")) + JSON.stringify(lease);
  assert.doesNotMatch(shown + inspect(agent, { showHidden: true, depth: 9 }), /vkh_|vkt_/);
  assert.match(shown, /vkl_/);
});

test("closing a broker releases its leases", async () => {
  const broker = test_broker.as("travel-bot");
  const lease = await broker.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  await broker.close();
  await thrown(HandleNotActiveError, tool.redeem(handle));
  assert.equal(await lease.ended, undefined);
});

/** Policies take effect, and handles die, a moment later. */
async function eventuallyRejects(kind: new (...words: never[]) => Error, call: () => Promise<unknown>): Promise<void> {
  for (let n = 0; n < 200; n += 1) {
    const error = await call().catch((error: unknown) => error);
    if (error instanceof kind) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  await thrown(kind as new (...words: never[]) => Error, call());
}

const ALL_OF_TUTORIAL = `
@id("test-all")
permit (principal in Team::"travel", action == Action::"acquire", resource in Vault::"tutorial")
unless { resource in Item::"tutorial/travel card" };
`;
