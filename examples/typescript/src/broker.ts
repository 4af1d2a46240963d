/** A throw-away broker, with the demo's policies and identities. */

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Broker } from "valetkey";
import type { Brokers } from "./handles.js";

/** Starts one, has `work` done with it, and stops it. */
export async function withBroker<T>(work: (brokers: Brokers) => Promise<T>): Promise<T> {
  const program = process.env.VALETKEY_BIN ?? fileURLToPath(new URL("../../../target/debug/valetkey", import.meta.url));
  const env = { ...process.env, VALETKEY_LOG: "warn" };
  const child = spawn(program, ["serve", "--dev"], { env, stdio: ["ignore", "pipe", "inherit"] });
  try {
    const said = await introduced(createInterface({ input: child.stdout }));
    const as = (name: string) => new Broker({ address: said.get("address"), token: said.get(name) });
    const [agent, navan, ramp] = [as("agent:travel-bot"), as("tool:navan.book_flight"), as("tool:ramp.submit_expense")];
    await using _agent = agent;
    await using _navan = navan;
    await using _ramp = ramp;
    return await work({ agent, navan, ramp });
  } finally {
    child.kill();
  }
}

/** What it prints: its address, and a token below each identity. */
async function introduced(lines: AsyncIterable<string>): Promise<Map<string, string>> {
  const said = new Map<string, string>();
  let name = "";
  for await (const line of lines) {
    name = /^# ((?:agent|tool|person):\S+)$/.exec(line)?.[1] ?? name;
    const [, key, value] = /^export VALETKEY_(ADDRESS|TOKEN)=(\S+)$/.exec(line) ?? [];
    if (value !== undefined) said.set(key === "ADDRESS" ? "address" : name, value);
    if (said.has("person:omar")) return said;
  }
  throw new Error("the broker ended before it said who may call");
}
