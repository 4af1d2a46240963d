import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { HandleNotActiveError } from "valetkey";
import { BOOKING, eventually, NAVAN, NAVAN_PASSWORD, PACKAGE, shown, TestBroker } from "./harness.js";

test("a wall clock that is an hour wrong, and one that jumps, change nothing", async (t) => {
  await using broker = await TestBroker.start();
  const right = Date.now;
  t.after(() => {
    Date.now = right;
  });
  for (const hours of [1, -1]) {
    Date.now = () => right() + hours * 3_600_000;
    await using agent = broker.as("travel-bot");
    await using tool = broker.as("navan.book_flight");
    await using lease = await agent.lease(NAVAN, { ...BOOKING, ttl: 2 });
    const seen = new Set<string>();
    await eventually("two handles", () => shown(lease, seen) >= 2);
    Date.now = () => right() - hours * 3_600_000;
    await eventually("two more", () => shown(lease, seen) >= 4);
    assert.equal((await lease.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
  }
});

test("no handle is shown whose time went by while the process was held up, or the machine slept", async (t) => {
  await using broker = await TestBroker.start();
  await using agent = broker.as("travel-bot");
  // Its life is not asked for, and it was never renewed.
  await using lease = await agent.lease(NAVAN, BOOKING);
  const { handle } = lease.get("password");
  const [now, uptime] = [performance.now.bind(performance), os.uptime];
  const later = (held: number, slept: number) => {
    t.mock.method(performance, "now", () => now() + held * 1000);
    t.mock.method(os, "uptime", () => uptime() + held + slept);
    syncBuiltinESMExports();
  };
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  for (const [held, slept] of [
    [66, 0],
    [0, 66],
  ] as const) {
    later(held / 2, slept / 2);
    assert.equal(lease.get("password").handle, handle);
    later(held, slept);
    assert.throws(() => lease.get("password").handle, HandleNotActiveError);
  }
  later(0, 0);
  assert.equal(lease.get("password").handle, handle);
});

test("nothing in the package reads the wall clock", () => {
  const files = readdirSync(join(PACKAGE, "src")).filter((name) => name.endsWith(".ts"));
  const read = (name: string) => readFileSync(join(PACKAGE, "src", name), "utf8");
  assert.deepEqual(
    files.filter((name) => /\bDate\b(?!\.parse)|toDate|timestampNow/.test(read(name))),
    [],
  );
});

test("the stubs are what the protocol buffers say", () => {
  execFileSync(process.execPath, [join(PACKAGE, "scripts/generate.mjs"), "--check"], { stdio: "pipe" });
});
