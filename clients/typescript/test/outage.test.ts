/** What happens to leases when the broker, the network or the policies go away. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import {
  type Broker,
  type BrokerOptions,
  DeniedError,
  HandleNotActiveError,
  type Lease,
  LeaseLostError,
  TimedOutError,
  UnavailableError,
  ValetkeyError,
} from "valetkey";
import { BOOKING, eventually, NAVAN, NAVAN_PASSWORD, Network, shown, TestBroker, thrown } from "./harness.js";

let broker: TestBroker;
let agent: Broker;
let tool: Broker;

beforeEach(async () => {
  broker = await TestBroker.start();
  agent = broker.as("travel-bot");
  tool = broker.as("navan.book_flight");
});

afterEach(async () => {
  // Its leases are not released: nobody may be there to answer.
  await broker.stop();
  await agent.close();
  await tool.close();
  await broker[Symbol.asyncDispose]();
});

/** The lease works, with another handle than before. */
async function works(lease: Lease<keyof typeof NAVAN>, before: string): Promise<void> {
  await lease.ready();
  assert.notEqual(lease.get("password").handle, before);
  assert.equal((await lease.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
  assert.equal(lease.revoked.aborted, false);
}

test("a broker that is killed and comes back gives fresh handles", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  await broker.stop("SIGKILL");
  await eventually("the lease notices", () => !lease.isLive);
  // Never a stale handle: there is none, and it says why.
  assert.match(
    (
      await thrown(
        UnavailableError,
        attempt(() => lease.get("password").handle),
      )
    ).message,
    /lease\.ready/,
  );
  await broker.run();
  await works(lease, handle);
  await thrown(HandleNotActiveError, tool.redeem(handle));
});

test("a redeem that is under way waits for the broker to come back", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  await broker.stop("SIGKILL");
  const redeem = lease.get("password").redeem({ with: tool });
  await broker.run();
  assert.equal((await redeem).expose(), NAVAN_PASSWORD);
});

test("a broker that drains is followed to the next one", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  const gone = broker.stop("SIGTERM");
  await gone;
  await broker.run();
  await works(lease, handle);
  assert.match(broker.audit("agent:travel-bot"), /navan/);
});

test("a broker that stays away ends the lease, within the time given", async () => {
  const impatient = broker.as("travel-bot", { resume: 1 });
  const lease = await impatient.lease(NAVAN, BOOKING);
  await broker.stop("SIGKILL");
  const start = performance.now();
  const why = await lease.ended;
  assert.ok(performance.now() - start < 15_000);
  assert.equal(why?.end, "unavailable");
  assert.ok(why?.cause instanceof UnavailableError);
  assert.equal(lease.revoked.reason, why);
  await thrown(LeaseLostError, lease.get("password").redeem({ with: tool }));
  await impatient.close();
});

test("a broker that is not there is said soon, and one that was there is waited for", async () => {
  await broker.stop("SIGKILL");
  const error = await inTime(15_000, thrown(UnavailableError, agent.lease(NAVAN, BOOKING)));
  assert.match(error.message, /no broker answers at `http:\/\/127\.0\.0\.1:\d+` .*is `valetkey serve` running there/);
  await broker.run();
  await agent.check(NAVAN.password, BOOKING);
  await broker.stop("SIGKILL");
  const lease = agent.lease(NAVAN, BOOKING);
  await broker.run();
  assert.equal((await (await lease).get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
});

test("a broker that hangs keeps nobody beyond the deadline", async () => {
  const brisk: BrokerOptions = { deadline: 2 };
  const hasty = broker.as("travel-bot", brisk);
  const hastyTool = broker.as("navan.book_flight", brisk);
  const lease = await hasty.lease(NAVAN, BOOKING);
  broker.signal("SIGSTOP");
  await inTime(8000, thrown(ValetkeyError, hastyTool.redeem(lease.get("password").handle)));
  await inTime(8000, thrown(ValetkeyError, hasty.lease(NAVAN, BOOKING)));
  await inTime(8000, thrown(TimedOutError, broker.as("travel-bot", brisk).check(NAVAN.password, BOOKING)));
  // Nor does letting go of it.
  await inTime(8000, lease.release());
  broker.signal("SIGCONT");
  await hasty.close();
  await hastyTool.close();
});

test("a broker that hangs is noticed, and its lease resumed when it goes on", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  broker.signal("SIGSTOP");
  await eventually("the lease notices", () => !lease.isLive);
  broker.signal("SIGCONT");
  await works(lease, handle);
});

test("a network that is cut and restored gives fresh handles", async () => {
  await using network = await Network.to(broker.address);
  const far = broker.as("travel-bot", { address: network.address });
  const lease = await far.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  network.cut();
  await eventually("the lease notices", () => !lease.isLive);
  network.restore();
  await works(lease, handle);
  await far.close();
});

test("a network that loses everything without a word is noticed", async () => {
  await using network = await Network.to(broker.address);
  const far = broker.as("travel-bot", { address: network.address });
  const lease = await far.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  network.silence();
  await eventually("the lease notices", () => !lease.isLive);
  assert.throws(() => lease.get("password").handle, UnavailableError);
  network.restore();
  await works(lease, handle);
  await far.close();
});

test("a handle that had its time is not shown, however silent the network is", async () => {
  await using network = await Network.to(broker.address);
  const far = broker.as("travel-bot", { address: network.address });
  const lease = await far.lease(NAVAN, { ...BOOKING, ttl: 1 });
  network.silence();
  // It may be a renewal that was on its way.
  const seen = new Map<string, number>();
  for (;;) {
    const before = performance.now();
    try {
      const { handle } = lease.get("password");
      const first = seen.get(handle) ?? performance.now();
      seen.set(handle, first);
      assert.ok(before - first < 1000, "it outlived its life");
    } catch (error) {
      assert.ok(error instanceof HandleNotActiveError || error instanceof UnavailableError, String(error));
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  network.cut();
  await far.close();
});

test("a handle that died while the network was silent is replaced by a redeem, in silence", async () => {
  await using network = await Network.to(broker.address);
  const far = broker.as("travel-bot", { address: network.address });
  const lease = await far.lease(NAVAN, BOOKING);
  network.silence();
  await agent.endLease(lease.id);
  // The client does not know yet: it asks, is refused, and finds out that nobody is there.
  const redeem = lease.get("password").redeem({ with: tool });
  await eventually("the lease notices", () => !lease.isLive);
  network.restore();
  assert.equal((await redeem).expose(), NAVAN_PASSWORD);
  await far.close();
});

test("a slow network is slow, and breaks nothing", async () => {
  await using network = await Network.to(broker.address);
  network.slow(300);
  const far = broker.as("travel-bot", { address: network.address });
  const farTool = broker.as("navan.book_flight", { address: network.address });
  const lease = await far.lease(NAVAN, { ...BOOKING, ttl: 4 });
  const { id } = lease;
  const seen = new Set<string>();
  await eventually("a renewal", () => shown(lease, seen) >= 2);
  assert.equal((await lease.get("password").redeem({ with: farTool })).expose(), NAVAN_PASSWORD);
  assert.equal(lease.id, id);
  await lease.release();
  await far.close();
  await farTool.close();
});

test("whoever waits can give up, whatever for", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  await tool.check(NAVAN.password, BOOKING).catch(() => {});
  const { handle } = lease.get("password");
  const waits: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
    lease: (signal) => agent.lease(NAVAN, { ...BOOKING, signal }),
    redeem: (signal) => tool.redeem(handle, { signal }),
    "redeem of a lease": (signal) => lease.get("password").redeem({ with: tool, signal }),
    check: (signal) => agent.check(NAVAN.password, { ...BOOKING, signal }),
    end: (signal) => agent.endLease(lease.id, { signal }),
  };
  const givenUp = async (all: typeof waits) => {
    const why = new Error("changed my mind");
    const control = new AbortController();
    const ends = Object.entries(all).map(async ([name, wait]) => {
      assert.equal(await thrown(Error, wait(control.signal)), why, name);
      assert.equal(await thrown(Error, wait(control.signal)), why, `${name}, too late`);
    });
    setTimeout(() => control.abort(why), 100);
    await inTime(20_000, Promise.all(ends));
  };
  broker.signal("SIGSTOP");
  await givenUp(waits);
  await eventually("the lease notices", () => !lease.isLive);
  // Now they wait for the broker to come back, or connect to one that does not answer.
  await givenUp({ ...waits, ready: (signal) => lease.ready({ signal }) });
  broker.signal("SIGCONT");
});

test("an answer that got lost is not asked for again with the same handle", async () => {
  await using network = await Network.to(broker.address);
  const far = broker.as("navan.book_flight", { address: network.address });
  await far.check(NAVAN.password, BOOKING).catch(() => {});
  const lease = await agent.lease(NAVAN, BOOKING);
  network.silence();
  const redeem = thrown(UnavailableError, far.redeem(lease.get("password").handle));
  setTimeout(() => network.cut(), 300);
  const error = await inTime(15_000, redeem);
  assert.equal(error.nothingDone, false);
  await far.close();
});

test("a policy that is taken back revokes the lease, and its signal says so", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  broker.policy("travel.cedar", (text) => text.replaceAll('"username", "password"', '"username"'));
  await eventually("the password goes", () => lease.get("password").failure !== undefined);
  assert.throws(() => lease.get("password").handle, LeaseLostError);
  // What uses it must stop, though the rest of the lease is good.
  assert.ok(lease.revoked.reason instanceof LeaseLostError);
  assert.equal(lease.revoked.reason.reference, NAVAN.password);
  assert.equal(lease.isLive, true);
  await thrown(HandleNotActiveError, tool.redeem(handle));
  assert.equal((await lease.get("username").redeem({ with: tool })).expose(), "demo-navan-user@travel.example");
  await thrown(DeniedError, agent.lease(NAVAN, BOOKING));

  const last = await agent.lease({ username: NAVAN.username }, BOOKING);
  broker.policy("travel.cedar", (text) => text.replaceAll('["username"]', '["notesplain"]'));
  const why = await last.ended;
  assert.equal(why?.end, "policy");
  assert.equal(last.revoked.aborted, true);
});

test("a broker that comes back with other policies refuses for good", async () => {
  const lease = await agent.lease(NAVAN, BOOKING);
  await broker.stop("SIGKILL");
  broker.policy("travel.cedar", (text) => text.replaceAll('"username", "password"', '"username"'));
  await broker.run();
  const why = await lease.ended;
  assert.equal(why?.end, "refused");
  assert.ok(why?.cause instanceof DeniedError);
});

test("what policy took back does not cost the rest of the lease, and what was used is not asked for again", async () => {
  const references = { ...NAVAN, number: "op://Tutorial/Travel Card/number" };
  const lease = await agent.lease(references, BOOKING);
  await lease.get("number").redeem({ with: tool });
  broker.policy("travel.cedar", (text) => text.replaceAll('"username", "password"', '"username"'));
  await eventually("the password goes", () => lease.get("password").failure !== undefined);
  await broker.stop("SIGKILL");
  await broker.run();
  await lease.ready();
  assert.equal((await lease.get("username").redeem({ with: tool })).expose(), "demo-navan-user@travel.example");
  assert.throws(() => lease.get("password").handle, LeaseLostError);
  assert.throws(() => lease.get("number").handle, HandleNotActiveError);
});

test("two hundred leases at once, through a restart", async () => {
  const leases = await Promise.all(Array.from({ length: 200 }, () => agent.lease(NAVAN, BOOKING)));
  const redeem = (lease: Lease<"username" | "password">, name: "username" | "password") =>
    lease.get(name).redeem({ with: tool });
  const values = await Promise.all(leases.map((lease) => redeem(lease, "password")));
  assert.ok(values.every((value) => value.expose() === NAVAN_PASSWORD));
  await broker.stop("SIGKILL");
  await broker.run();
  await Promise.all(leases.map((lease) => redeem(lease, "username")));
  await Promise.all(leases.map((lease) => lease.release()));
});

/** An exception as a rejection. */
async function attempt<T>(work: () => T): Promise<T> {
  return work();
}

/** Fails where the promise takes longer. */
async function inTime<T>(ms: number, promise: Promise<T>): Promise<T> {
  const start = performance.now();
  const value = await promise;
  const took = performance.now() - start;
  assert.ok(took < ms, `it took ${took} ms of ${ms}`);
  return value;
}
