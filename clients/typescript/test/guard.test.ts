/** Who gets a value, and who sees it afterwards. Each of these once went the other way. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Broker, CONCEALED, DeniedError, InvalidRequestError, PreconditionError } from "valetkey";
import { Guard, type GuardedTool } from "valetkey/ai";
import { FakeBroker } from "valetkey/testing";
import { Released } from "../src/released.js";
import { thrown } from "./harness.js";

const REFERENCE = "op://Travel/Navan/password";
const VALUE = "hunter2-geheim";
const BOOKING = { tool: "navan.book_flight", purpose: "book the flight" } as const;

type Input = Record<string, unknown>;

/** A tool that notes what it gets, and gives back what it is told to. */
function noting(got: Input[], answer: (input: Input) => unknown = () => "done") {
  return {
    execute: async (input: Input): Promise<unknown> => {
      got.push(input);
      return answer(input);
    },
  };
}

function guarding(agent: Broker, tools: Readonly<Record<string, GuardedTool>>): Guard {
  return new Guard(agent, tools, { purpose: "try it" });
}

test("a handle goes to the tool that it was leased for, and to no other", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, VALUE);
  const [agent, navan] = [fake.agent(), fake.tool(BOOKING.tool)];
  await using lease = await agent.lease({ password: REFERENCE }, BOOKING);
  const { handle } = lease.get("password");
  const got: Input[] = [];
  const takes = { fields: ["password"], redeemWith: navan };
  const { book, search, open } = guarding(agent, {
    book: { name: BOOKING.tool, ...takes },
    search: { name: "web.search", ...takes },
  }).wrap({ book: noting(got), search: noting(got), open: noting(got) });
  // Not even by the identity that could redeem it.
  const error = await thrown(DeniedError, search.execute({ password: handle }));
  assert.match(error.message, /is for `navan.book_flight`, not for `web.search`/);
  // Not named: nothing is put in.
  await open.execute({ password: handle, other: REFERENCE });
  assert.deepEqual(got, [{ password: handle, other: REFERENCE }]);
  assert.ok(!fake.calls.some(({ kind }) => kind === "redeem"));
  await book.execute({ password: handle, comment: handle });
  assert.deepEqual(got.at(-1), { password: VALUE, comment: handle });
});

test("a tool whose fields are not named gets nothing", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, VALUE);
  const got: Input[] = [];
  const tools = { constructor: noting(got), book: noting(got) };
  const wrapped = guarding(fake.agent(), { book: { name: "book", fields: [], redeemWith: fake.tool("book") } }).wrap(
    tools,
  );
  await wrapped.book.execute({ password: REFERENCE });
  await wrapped.constructor.execute({ password: REFERENCE });
  assert.deepEqual(got, [{ password: REFERENCE }, { password: REFERENCE }]);
  assert.deepEqual(fake.calls, []);
});

test("what the agent itself would redeem, it redeems for the tool of its lease alone", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, VALUE).redeemByAgent();
  const agent = fake.agent();
  const got: Input[] = [];
  const takes = { fields: ["password"], redeemWith: agent };
  const guard = guarding(agent, { book: { name: "book", ...takes }, search: { name: "search", ...takes } });
  const { book, search } = guard.wrap({
    book: noting(got),
    search: noting(got),
  });
  // Of another connection of the same agent: the broker would give it to whoever asks.
  await using unknown = await fake.agent().lease({ password: REFERENCE }, { ...BOOKING, tool: "book" });
  for (const tool of [book, search]) {
    const error = await thrown(DeniedError, tool.execute({ password: unknown.get("password").handle }));
    assert.match(error.message, /of no open lease/);
  }
  await using lease = await agent.lease({ password: REFERENCE }, { ...BOOKING, tool: "book" });
  const { handle } = lease.get("password");
  await thrown(DeniedError, search.execute({ password: handle }));
  assert.deepEqual(got, []);
  await book.execute({ password: handle });
  assert.deepEqual(got, [{ password: VALUE }]);
});

test("who has the id of a handle has no handle", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, VALUE).redeemByAgent();
  const agent = fake.agent();
  await using lease = await agent.lease({ password: REFERENCE }, BOOKING);
  const forged = `${lease.get("password").handleId}_${"0".repeat(40)}`;
  assert.equal(lease.find(forged), undefined);
  assert.equal(agent.find(forged), undefined);
  const takes = { name: BOOKING.tool, fields: ["password"], redeemWith: agent };
  const { book } = guarding(agent, { book: takes }).wrap({ book: noting([]) });
  await thrown(DeniedError, book.execute({ password: forged }));
  assert.ok(agent.find(lease.get("password").handle));
});

test("a value that a tool keeps is concealed in every later answer of a guarded tool", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, VALUE).allow("op://Travel/Card/code", "737");
  const kept: unknown[] = [];
  const { book, list } = guarding(fake.agent(), {
    book: { name: "book", fields: ["password", "code"], redeemWith: fake.tool("book") },
  }).wrap({
    book: noting([], ({ password, code }) => {
      kept.push({ login: `bob:${password}`, code: `code ${code}`, total: "17370.00" });
      return "booked";
    }),
    list: { execute: async (_: Input) => kept },
  });
  await book.execute({ password: REFERENCE, code: "op://Travel/Card/code" });
  const shown = [{ login: `bob:${CONCEALED}`, code: `code ${CONCEALED}`, total: "17370.00" }];
  assert.deepEqual(await list.execute({}), shown);
  kept.push({
    toString: () => {
      throw new Error(`with ${VALUE}`);
    },
    get broken(): string {
      throw new Error(`with ${VALUE}`);
    },
  });
  const error = await thrown(Error, list.execute({}));
  assert.doesNotMatch(`${error.message} ${error.stack}`, /hunter2/);
});

test("what is remembered has bounds, and the oldest go", (t) => {
  const released = new Released();
  for (let n = 0; n < 300; n += 1) released.add(`value-number-${n}.`);
  assert.equal(released.known.text("value-number-299."), CONCEALED);
  assert.equal(released.known.text("value-number-43."), "value-number-43.");
  assert.equal(released.known.text("value-number-44."), CONCEALED);
  // What was put in again is young again.
  released.add("value-number-44.");
  released.add("one more value");
  assert.equal(released.known.text("value-number-44."), CONCEALED);
  assert.equal(released.known.text("value-number-45."), "value-number-45.");
  released.add("x".repeat(260 * 1024));
  assert.equal(released.known.text("value-number-299."), "value-number-299.");
  released.add("small enough");
  assert.equal(released.known.text("small enough"), CONCEALED);
  const now = performance.now();
  t.mock.method(performance, "now", () => now + 3_590_000);
  released.add("later");
  assert.equal(released.known.text("small enough"), CONCEALED);
  t.mock.method(performance, "now", () => now + 3_610_000);
  assert.equal(released.known.text("small enough, later"), `small enough, ${CONCEALED}`);
});

test("no answer tells a model which of its guesses was right", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, "4471").allow("op://Travel/Navan/user", VALUE);
  const got: Input[] = [];
  const { book, echo } = guarding(fake.agent(), {
    book: { name: "book", fields: ["password", "user"], redeemWith: fake.tool("book") },
  }).wrap({ book: noting(got, ({ route }) => route), echo: noting(got, (input) => input) });
  const guesses = Array.from({ length: 10_000 }, (_, n) => String(n).padStart(4, "0"));
  const written: unknown[] = [guesses.join(","), guesses, { a: [{ b: "(4471)" }] }, { 4471: "" }, 4471];
  for (const route of written) {
    const error = await thrown(InvalidRequestError, book.execute({ route, password: REFERENCE }));
    assert.match(error.message, /kept from you/);
    assert.doesNotMatch(error.message, /4471/);
  }
  const basic = Buffer.from(`me:${VALUE}`).toString("base64");
  await thrown(InvalidRequestError, book.execute({ route: basic, user: "op://Travel/Navan/user" }));
  await thrown(InvalidRequestError, echo.execute({ text: basic }));
  await thrown(InvalidRequestError, echo.execute({ text: guesses.join(",") }));
  assert.deepEqual(got, []);
  // What stands in the names of things is no guess.
  await using named = new FakeBroker().allow("op://Travel/hunter2/password", "password");
  const own = guarding(named.agent(), {
    book: { name: "book", fields: ["password"], redeemWith: named.tool("book") },
  });
  await own.wrap({ book: noting(got) }).book.execute({ password: "op://Travel/hunter2/password" });
  assert.deepEqual(got, [{ password: "password" }]);
});

test("a handle among other text is refused, and not given to the tool as it is", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, VALUE);
  const agent = fake.agent();
  await using lease = await agent.lease({ password: REFERENCE }, BOOKING);
  const takes = { name: BOOKING.tool, fields: ["password"], redeemWith: fake.tool(BOOKING.tool) };
  const { book } = guarding(agent, { book: takes }).wrap({ book: noting([]) });
  const error = await thrown(InvalidRequestError, book.execute({ password: `Bearer ${lease.get("password").handle}` }));
  assert.match(error.message, /write the handle alone/);
  const { alone } = guarding(agent, { alone: { ...takes, redeemWith: agent } }).wrap({ alone: noting([]) });
  await thrown(PreconditionError, alone.execute({ password: lease.get("password").handle }));
});
