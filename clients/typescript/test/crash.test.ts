/** What answers in a broker's place must not end the process that asks. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { PACKAGE } from "./harness.js";

/** How a server treats whoever connects. */
const KINDS = {
  "speaks HTTP/1.1": 'socket.once("data", () => socket.end("HTTP/1.1 502 Bad Gateway\\r\\n\\r\\n"))',
  "says nothing": "socket.resume()",
  "hangs up": "socket.destroy()",
  resets: "socket.resetAndDestroy()",
  "greets and is silent": "socket.resume().write(SETTINGS)",
  "greets and goes away":
    "socket.resume().write(Buffer.concat([SETTINGS, GOAWAY])), setTimeout(() => socket.destroy(), 500)",
  "greets and talks nonsense": 'socket.resume().write(Buffer.concat([SETTINGS, Buffer.alloc(64, "x")]))',
};

test("the process survives whatever answers", { concurrency: true }, async (t) => {
  await Promise.all(Object.entries(KINDS).map(([kind, how]) => t.test(kind, () => survives(how))));
});

async function survives(how: string): Promise<void> {
  const script = `
    import { once } from "node:events";
    import { createServer } from "node:net";
    import { Broker } from "valetkey";
    const SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    const GOAWAY = Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const server = createServer((socket) => { socket.on("error", () => {}); ${how}; });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const broker = new Broker({ address: "http://127.0.0.1:" + server.address().port, token: "vkt_a", deadline: 4 });
    const failed = (error) => console.log(error.name);
    for (let n = 0; n < 2; n += 1) {
      const check = broker.check("op://a/b/c", { tool: "t" }).catch(failed);
      await broker.lease({ a: "op://a/b/c" }, { tool: "t", purpose: "p" }).catch(failed);
      await check;
    }
    await broker.close();
    // What a connection says last may come after the calls.
    setTimeout(() => { console.log("alive"); process.exit(); }, 3000);
  `;
  const words = ["--input-type=module", "--eval", script];
  const { stdout } = await promisify(execFile)(process.execPath, words, { cwd: PACKAGE, timeout: 120_000 });
  assert.match(stdout, /^(?:(?:Unavailable|TimedOut|NoBroker)Error\n){4}alive\n$/);
}
