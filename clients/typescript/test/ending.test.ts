/** When a process that uses the package can end: once its leases are released or over, whoever is away. */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { NAVAN, PACKAGE, PROGRAM, TestBroker } from "./harness.js";

const children: ChildProcess[] = [];
after(() => children.forEach((child) => void child.kill()));

/** A program with a lease; what it prints, line by line, and its exit code. */
function program(broker: TestBroker, resume: number, body: string) {
  const text = `
    import { Broker } from "valetkey";
    const agent = Broker.fromEnv({ resume: ${resume} });
    const lease = await agent.lease({ password: "${NAVAN.password}" }, { tool: "navan.book_flight", purpose: "try it" });
    console.log("open");
    while (lease.isLive) await new Promise((resolve) => setTimeout(resolve, 10));
    ${body}`;
  const env = { ...process.env, ...broker.env("travel-bot") };
  return started(text, env);
}

function started(text: string, env: NodeJS.ProcessEnv) {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", text], { cwd: PACKAGE, env });
  children.push(child);
  const lines: string[] = [];
  const errors: string[] = [];
  const out = createInterface({ input: child.stdout });
  out.on("line", (line) => lines.push(line));
  createInterface({ input: child.stderr }).on("line", (line) => errors.push(line));
  return { lines, errors, first: once(out, "line"), end: once(child, "close").then(([code]) => code) };
}

test("a lease that is released while its broker is away keeps no process", async () => {
  await using broker = await TestBroker.start();
  const { first, end, lines, errors } = program(broker, 600, `await lease.release(); ${SOON}`);
  await first;
  await broker.stop("SIGKILL");
  assert.equal(await end, 0, errors.join("\n"));
  assert.deepEqual(lines, ["open", "in time"]);
});

test("a lease that is not released keeps its process until it is over, and says why", async () => {
  await using broker = await TestBroker.start();
  const { first, end, lines, errors } = program(broker, 1, "console.log((await lease.ended).end);");
  await first;
  await broker.stop("SIGKILL");
  assert.equal(await end, 0, errors.join("\n"));
  assert.deepEqual(lines, ["open", "unavailable"]);
});

test("a connection that nobody waits for any more keeps no process", async () => {
  // Takes connections, and never answers to TLS.
  const server = createServer((socket) => void socket.on("error", () => {}));
  server.listen(0, "127.0.0.1").unref();
  await once(server, "listening");
  const text = `
    import { Broker } from "valetkey";
    const agent = new Broker({
      address: "https://127.0.0.1:${(server.address() as AddressInfo).port}",
      ca: process.env.SOME_CA, token: "vkt_a", deadline: 0.2,
    });
    const name = await agent.check("op://a/b/c", { tool: "t" }).catch((error) => error.name);
    const since = performance.now();
    process.on("exit", () => console.log(name, performance.now() - since < 4000 ? "in time" : "late"));`;
  const folder = mkdtempSync(join(tmpdir(), "valetkey-ending-"));
  execFileSync(PROGRAM, ["dev-ca", join(folder, "ca")], { stdio: "ignore" });
  const { end, lines, errors } = started(text, { ...process.env, SOME_CA: join(folder, "ca/ca.pem") });
  assert.equal(await end, 0, errors.join("\n"));
  assert.deepEqual(lines, ["TimedOutError in time"]);
  server.close();
  rmSync(folder, { recursive: true });
});

/** Says how long the process was kept. */
const SOON = `
    const since = performance.now();
    process.on("exit", () => console.log(performance.now() - since < 30_000 ? "in time" : "late"));`;
