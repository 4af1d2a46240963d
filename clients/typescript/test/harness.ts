/** A real broker on a port of its own, and a network between it and its callers that can be cut. */

import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Broker, type BrokerOptions, HandleNotActiveError, type Lease } from "valetkey";

/** The root of the repository; the tests run from build/test. */
export const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
/** The package. */
export const PACKAGE = join(ROOT, "clients/typescript");

/** The program under test. */
export const PROGRAM = process.env.VALETKEY_BIN ?? join(ROOT, "target/debug/valetkey");

/** The secrets of the travel story, as a tool of the travel agent may use them. */
export const NAVAN = {
  username: "op://Tutorial/Navan/username",
  password: "op://Tutorial/Navan/password",
} as const;
export const NAVAN_PASSWORD = "demo-navan-password-7f3a91";
export const BOOKING = { tool: "navan.book_flight", purpose: "book the flight to Lisbon" } as const;

type Kind = "agent" | "tool" | "person";

/** A broker in a process of its own, with the policies and the vault of the repository. */
export class TestBroker implements AsyncDisposable {
  readonly home = mkdtempSync(join(tmpdir(), "valetkey-ts-"));
  address = "";
  readonly #tokens = new Map<string, string>();
  #process: ChildProcess | undefined;

  /** Starts one. `limits` are lines of that section of its configuration, `more` are sections behind it. */
  static async start(limits = "drain_grace_seconds = 1", more = ""): Promise<TestBroker> {
    assert.ok(
      existsSync(PROGRAM),
      `there is no ${PROGRAM}; build it (\`cargo build -p valetkey\`) or set VALETKEY_BIN`,
    );
    const broker = new TestBroker();
    cpSync(join(ROOT, "policies"), join(broker.home, "policies"), { recursive: true });
    cpSync(join(ROOT, "examples/travel/vault.json"), join(broker.home, "vault.json"));
    chmodSync(join(broker.home, "vault.json"), 0o600);
    broker.#configure(limits, more);
    for (const [kind, name] of MEMBERS) broker.#member(kind, name);
    await broker.run();
    return broker;
  }

  /** The token of an identity, such as `travel-bot`. */
  token(name: string): string {
    const token = this.#tokens.get(name);
    assert.ok(token, `nobody is called ${name}`);
    return token;
  }

  /** The broker as an identity sees it. */
  as(name: string, options: BrokerOptions = {}): Broker {
    return new Broker({ address: this.address, token: this.token(name), ...options });
  }

  /** What a program needs in its environment to be this identity. */
  env(name: string): Record<string, string> {
    return { VALETKEY_ADDRESS: this.address, VALETKEY_TOKEN: this.token(name) };
  }

  /** Starts the process, on the port of the time before. */
  async run(): Promise<void> {
    const config = join(this.home, "valetkey.toml");
    const words = ["serve", "--config", config, "--create-database"];
    const child = spawn(PROGRAM, words, { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    const said: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        said.push(line);
        const address = /listens on (https?:\S+)/.exec(line)?.[1];
        if (address !== undefined) child.emit("listens", address);
      });
    }
    const listens = once(child, "listens").then(([address]) => String(address));
    const ends = once(child, "exit").then(() => assert.fail(`the broker ended: ${said.join("\n")}`));
    ends.catch(() => {});
    this.address = await Promise.race([listens, ends]);
    const text = readFileSync(config, "utf8");
    writeFileSync(config, text.replace(/^listen = .*$/m, `listen = "${this.address.replace(/^https?:../, "")}"`));
  }

  /** Sends a signal. */
  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  /** Ends the process, and waits until it is gone. */
  async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill(signal);
    // A process that is stopped takes no other signal.
    child.kill("SIGCONT");
    await gone;
  }

  /** Changes a file of its policies, and has them loaded. */
  policy(file: string, change: (text: string) => string): void {
    const path = join(this.home, "policies", file);
    writeFileSync(path, change(readFileSync(path, "utf8")));
    this.signal("SIGHUP");
  }

  /** What the audit log has, as the program prints it. */
  audit(query: string): string {
    const env = { ...process.env, ...this.env("ana") };
    return execFileSync(PROGRAM, ["audit", "query", query], { env, encoding: "utf8" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.home, { recursive: true });
  }

  #configure(limits: string, more: string): void {
    const text = `listen = "127.0.0.1:0"
[audit]
database = "audit.db"
[policies]
directory = "policies"
[[source]]
name = "embedded"
kind = "file"
file = "vault.json"
[limits]
${limits}
${more}
`;
    writeFileSync(join(this.home, "valetkey.toml"), text);
  }

  #member(kind: Kind, name: string): void {
    const words = ["token", "create", "--config", join(this.home, "valetkey.toml"), `--${kind}`, name];
    const token = execFileSync(PROGRAM, words, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    this.#tokens.set(name, token);
  }
}

/** A network that can be cut: a relay to the broker. */
export class Network implements AsyncDisposable {
  address = "";
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isCut = false;
  #isSilent = false;
  #delay = 0;

  private constructor(target: string) {
    const { hostname, port } = new URL(target);
    this.#server = createServer((near) => {
      if (this.#isCut) {
        near.destroy();
        return;
      }
      const far = connect(Number(port), hostname);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from);
        from.on("data", (bytes) => {
          if (this.#isSilent) return;
          if (this.#delay === 0) to.write(bytes);
          else setTimeout(() => to.write(bytes), this.#delay);
        });
        from.on("error", () => {});
        from.on("close", () => {
          this.#sockets.delete(from);
          // A silent network tells nobody that the other end hung up.
          if (!this.#isSilent) to.destroy();
        });
      }
    });
  }

  static async to(target: string): Promise<Network> {
    const network = new Network(target);
    network.#server.listen(0, "127.0.0.1");
    await once(network.#server, "listening");
    network.address = `http://127.0.0.1:${(network.#server.address() as AddressInfo).port}`;
    return network;
  }

  /** Breaks all connections, and every one that comes. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Loses everything that is sent, without a word. */
  silence(): void {
    this.#isSilent = true;
  }

  /** Takes so many milliseconds for each way, for ever. */
  slow(ms: number): void {
    this.#delay = ms;
  }

  restore(): void {
    this.#isCut = false;
    this.#isSilent = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
  }
}

/** Waits for something to become true; fails where it does not. */
export async function eventually(what: string, isSo: () => boolean, ms = 20_000): Promise<void> {
  const end = performance.now() + ms;
  while (!isSo()) {
    assert.ok(performance.now() < end, `not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** How many handles this lease has shown. A slow machine may renew one too late, and then there is none for a moment. */
export function shown(lease: Lease<keyof typeof NAVAN>, seen: Set<string>): number {
  try {
    seen.add(lease.get("password").handle);
  } catch (error) {
    if (!(error instanceof HandleNotActiveError)) throw error;
  }
  return seen.size;
}

/** What a promise rejects with; fails where it does not, or with another kind of error. */
export async function thrown<E extends Error>(
  kind: new (...words: never[]) => E,
  promise: Promise<unknown>,
): Promise<E> {
  const error = await promise.then(
    (value) => assert.fail(`it succeeded: ${String(value)}`),
    (error: unknown) => error,
  );
  assert.ok(error instanceof kind, `expected ${kind.name}, got ${String(error)}`);
  return error;
}

const MEMBERS: readonly (readonly [Kind, string])[] = [
  ["agent", "travel-bot"],
  ["agent", "notes-bot"],
  ["tool", "navan.book_flight"],
  ["tool", "ramp.submit_expense"],
  ["tool", "web.search"],
  ["person", "ana"],
  ["person", "omar"],
];
