/** The ways to a broker beside a token over loopback: certificates, a socket, a token that is renewed. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders, sensitiveHeaders } from "node:http2";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Broker, ConfigurationError, UnauthenticatedError, UnavailableError, ValetkeyError } from "valetkey";
import { BOOKING, NAVAN, NAVAN_PASSWORD, PROGRAM, TestBroker, thrown } from "./harness.js";

const folder = mkdtempSync(join(tmpdir(), "valetkey-tls-"));
after(() => rmSync(folder, { recursive: true }));

function authority(name: string): string {
  execFileSync(PROGRAM, ["dev-ca", join(folder, name)], { stdio: "ignore" });
  return join(folder, name);
}

test("certificates stand for tokens, and nobody but the named authority is trusted", async () => {
  const [own, other] = [authority("own"), authority("other")];
  await using broker = await TestBroker.start("", tls(own));
  const address = broker.address.replace("127.0.0.1", "localhost");
  const who = (name: string, ca = own) => ({
    address,
    ca: join(ca, "ca.pem"),
    certificate: join(own, `${name}.pem`),
    key: join(own, `${name}.key`),
  });
  await using agent = new Broker(who("agent"));
  await using tool = new Broker(who("tool"));
  await using lease = await agent.lease(NAVAN, BOOKING);
  assert.equal((await lease.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);

  const error = await thrown(ConfigurationError, new Broker(who("agent", other)).lease(NAVAN, BOOKING));
  assert.match(error.message, /no TLS with `https:\/\/localhost/);
  const { certificate, key, ...nobody } = who("agent");
  const uncertified = new Broker({ ...nobody, token: broker.token("travel-bot"), deadline: 5 });
  const refused = await thrown(ConfigurationError, uncertified.lease(NAVAN, BOOKING));
  assert.match(refused.message, /no TLS with .*certificate required/);
  const plain = new Broker({ address: broker.address.replace("https", "http"), token: "vkt_a", deadline: 5 });
  const clear = await thrown(UnavailableError, plain.lease(NAVAN, BOOKING));
  assert.match(clear.message, /does not answer as a broker .* begins with `https:\/\/`/);
});

test("a socket knows its callers", async () => {
  const socket = join(folder, "broker.sock");
  const uid = process.getuid?.();
  const more = `[unix]\npath = "${socket}"\n[[identity]]\nagent = "travel-bot"\nuid = ${uid}\n`;
  await using broker = await TestBroker.start("", more);
  await using agent = Broker.fromEnv({ env: { VALETKEY_ADDRESS: `unix:${socket}` } });
  await using tool = broker.as("navan.book_flight");
  await using lease = await agent.lease(NAVAN, BOOKING);
  assert.equal((await lease.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
});

test("a token file is read again, so that a renewed token is shown", async () => {
  await using broker = await TestBroker.start();
  const file = join(folder, "token");
  writeFileSync(file, broker.token("web.search"), { mode: 0o600 });
  await using agent = Broker.fromEnv({ env: { VALETKEY_ADDRESS: broker.address, VALETKEY_TOKEN_FILE: file } });
  await thrown(ValetkeyError, agent.check(NAVAN.password, BOOKING));
  writeFileSync(file, `${broker.token("travel-bot")}\n`);
  assert.equal((await agent.check(NAVAN.password, BOOKING)).allowed, true);
  writeFileSync(file, "vkt_x");
  await thrown(UnauthenticatedError, agent.check(NAVAN.password, BOOKING));
  rmSync(file);
  assert.match(
    (await thrown(ConfigurationError, agent.check(NAVAN.password, BOOKING))).message,
    /cannot be read: ENOENT/,
  );
});

test("a lease whose token is revoked ends, and one whose token was renewed goes on", async () => {
  await using broker = await TestBroker.start();
  const as = (name: string) => ({ env: { ...process.env, ...broker.env(name) }, encoding: "utf8" as const });
  const fresh = () =>
    execFileSync(PROGRAM, ["token", "create", "--agent", "travel-bot"], {
      ...as("omar"),
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  const revoke = (token: string) =>
    execFileSync(PROGRAM, ["token", "revoke", token.split("_").slice(0, 2).join("_")], as("omar"));
  const [first, second] = [fresh(), fresh()];
  await using fixed = new Broker({ address: broker.address, token: first });
  let now = first;
  await using renewed = new Broker({ address: broker.address, token: () => now });
  const [ends, goesOn] = [await fixed.lease(NAVAN, BOOKING), await renewed.lease(NAVAN, BOOKING)];
  now = second;
  revoke(first);
  assert.equal((await ends.ended)?.end, "credential");
  await using tool = broker.as("navan.book_flight");
  assert.equal((await goesOn.get("password").redeem({ with: tool })).expose(), NAVAN_PASSWORD);
});

test("no compression keeps a token, here or in a proxy", async () => {
  const server = createServer();
  const headers: IncomingHttpHeaders[] = [];
  server.on("stream", (stream, those) => {
    headers.push(those);
    stream.respond({ ":status": 503 }, { endStream: true });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  await using agent = new Broker({
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    token: "vkt_a",
    deadline: 1,
  });
  await thrown(ValetkeyError, agent.check(NAVAN.password, { ...BOOKING, onBehalfOf: "a.b.c" }));
  await agent.close();
  server.close();
  assert.ok(headers.length > 0);
  for (const those of headers) {
    assert.equal(those.authorization, "Bearer vkt_a");
    const secret = Reflect.get(those, sensitiveHeaders) as string[];
    assert.ok(secret.includes("authorization") && secret.includes("x-valetkey-on-behalf-of"), secret.join());
  }
});

function tls(home: string): string {
  const file = (name: string) => join(home, name);
  return `[tls]
certificate = "${file("broker.pem")}"
key = "${file("broker.key")}"
client_ca = "${file("ca.pem")}"
trust_domain = "valetkey.test"
[[spiffe_rule]]
pattern = "spiffe://valetkey.test/agent/{name}"
agent = "{name}"
[[spiffe_rule]]
pattern = "spiffe://valetkey.test/tool/{name}"
tool = "{name}"
`;
}
