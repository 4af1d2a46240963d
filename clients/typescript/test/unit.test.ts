/** What needs no broker. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { format, inspect } from "node:util";
import { deserialize, serialize } from "node:v8";
import { Broker, CONCEALED, ConfigurationError, Secret, VERSION } from "valetkey";
import { PACKAGE } from "./harness.js";

const folder = mkdtempSync(join(tmpdir(), "valetkey-unit-"));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

const token = "vkt_a";
const pem = file("ca.pem", "-----BEGIN CERTIFICATE-----\n");

test("addresses and credentials that cannot be used are refused before anything is sent", () => {
  const good: Record<string, string>[] = [
    {},
    { VALETKEY_ADDRESS: "http://127.0.0.1:7447" },
    { VALETKEY_ADDRESS: "http://localhost:7447/" },
    { VALETKEY_ADDRESS: "http://[::1]:1" },
    { VALETKEY_ADDRESS: "https://broker.example.com:7447", VALETKEY_CA: pem },
    { VALETKEY_ADDRESS: "unix:/run/b.sock" },
  ];
  for (const env of good) assert.ok(Broker.fromEnv({ env: { VALETKEY_TOKEN: token, ...env } }), inspect(env));
  assert.ok(Broker.fromEnv({ env: { VALETKEY_ADDRESS: "unix:///b" } }), "a socket needs no token");
  assert.ok(Broker.fromEnv({ env: { VALETKEY_TOKEN_FILE: file("token", " vkt_b\n") } }));
  const refused = (env: Record<string, string>, says: RegExp) => {
    const make = () => Broker.fromEnv({ env: { VALETKEY_TOKEN: token, ...env } });
    assert.throws(make, (error) => {
      assert.ok(error instanceof ConfigurationError, String(error));
      assert.match(error.message, says);
      assert.doesNotMatch(inspect(error), /hunter2/);
      return true;
    });
  };
  const nowhere = join(folder, "nowhere");
  for (const address of [
    "",
    "unix:",
    "127.0.0.1:7447",
    "ftp://127.0.0.1",
    "http://127.0.0.1:1/path",
    "https://b.org/?q",
  ]) {
    refused({ VALETKEY_ADDRESS: address }, /is no address of a broker/);
  }
  refused({ VALETKEY_ADDRESS: "http://user:hunter2@127.0.0.1:7447" }, /is no address/);
  for (const address of ["http://10.0.0.1:7447", "http://127.0.0.1.example.com", "http://localhost.example.com"]) {
    refused({ VALETKEY_ADDRESS: address }, /clear text/);
  }
  refused({ VALETKEY_ADDRESS: "https://b.org" }, /VALETKEY_CA/);
  refused({ VALETKEY_ADDRESS: "https://b.org", VALETKEY_CA: nowhere }, /cannot be read: ENOENT/);
  refused({ VALETKEY_ADDRESS: "https://b.org", VALETKEY_CA: file("empty", "") }, /no certificate in PEM form/);
  refused({ VALETKEY_CERT: pem }, /needs its key/);
  refused({ VALETKEY_CERT: pem, VALETKEY_KEY: pem }, /would not be shown/);
  refused({ VALETKEY_TOKEN: " \n" }, /the token is empty/);
  refused({ VALETKEY_TOKEN: "hunter2 hunter2" }, /a character that no token has/);
  refused({ VALETKEY_TOKEN: "a".repeat(8193) }, /more than 8192/);
  assert.throws(() => Broker.fromEnv({ env: {} }), /who are you/);
  assert.throws(() => Broker.fromEnv({ env: { VALETKEY_TOKEN_FILE: nowhere } }), /cannot be read/);
  assert.throws(() => new Broker({ token, deadline: 0 }), /`deadline` must be/);
});

test("a message repeats no token that stands in the wrong place", () => {
  for (const wrong of [
    "vkt_a_hunter2",
    "OPS_hunter2",
    "eyJhunter2",
    "-----BEGIN PRIVATE KEY-----hunter2",
    "vkh_hunter2",
  ]) {
    for (const options of [
      { address: wrong, token },
      { address: `http://${wrong}`, token },
      { address: `ftp://${wrong}`, token },
      { address: "http://127.0.0.1:1", tokenFile: wrong },
      { address: "https://127.0.0.1:1", token, ca: wrong },
      { address: "https://127.0.0.1:1", token, ca: pem, certificate: pem, key: wrong },
    ]) {
      assert.throws(
        () => new Broker(options),
        (error) =>
          error instanceof ConfigurationError && !/hunter2/i.test(inspect(error, { showHidden: true, depth: 9 })),
      );
    }
  }
});

test("a service account's token is shown to no broker", () => {
  for (const wrong of ["ops_eyJhunter2", '"ops_eyJhunter2"', "'ops_a'", "OPS_eyJ", "op=ops_eyJ"]) {
    for (const make of [
      () => Broker.fromEnv({ env: { VALETKEY_TOKEN: wrong } }),
      () => Broker.fromEnv({ env: { VALETKEY_TOKEN_FILE: file("ops", `${wrong}\n`) } }),
      () => new Broker({ token: () => wrong }),
    ]) {
      assert.throws(make, (error) => error instanceof ConfigurationError && /service account/.test(error.message));
    }
  }
  for (const own of ["vkt_0123456789abcops_abc", "eyJhbGciOiJ.eyJpc3MiOi.c2lnbmF0ops_dXJl"])
    assert.ok(new Broker({ token: own }));
});

test("what is no file keeps nobody waiting", () => {
  const pipe = join(folder, "pipe");
  assert.equal(spawnSync("mkfifo", [pipe]).status, 0);
  for (const no of [pipe, "/dev/zero", "/dev/null", folder]) {
    const script = `
      import { Broker } from "valetkey";
      for (const make of [
        () => new Broker({ tokenFile: process.argv[1] }),
        () => new Broker({ address: "https://127.0.0.1:1", token: "vkt_a", ca: process.argv[1] }),
      ]) try { make(); } catch (error) { console.log(error.name, error.message); }`;
    const words = ["--input-type=module", "--eval", script, no];
    const { stdout } = spawnSync(process.execPath, words, { cwd: PACKAGE, encoding: "utf8", timeout: 20_000 });
    assert.match(stdout, /^(ConfigurationError `.*` is no regular file\n){2}$/, no);
  }
  assert.throws(() => new Broker({ tokenFile: file("large", "a".repeat(1024 * 1024 + 1)) }), /more than 1048576 bytes/);
});

test("a token in the environment counts before one in a file", () => {
  assert.ok(Broker.fromEnv({ env: { VALETKEY_TOKEN: token, VALETKEY_TOKEN_FILE: join(folder, "nowhere") } }));
});

test("a secret shows itself to nobody but `expose`", () => {
  const secret = new Secret(Buffer.from("hunter2"));
  const shown = [
    inspect(secret, { showHidden: true, depth: 9 }),
    inspect({ nested: [secret] }, { customInspect: false, showHidden: true, depth: 9 }),
    format("%s %o %O %j %d", secret, secret, secret, secret, secret),
    `${secret}`,
    String(secret),
    JSON.stringify({ secret }),
    JSON.stringify(structuredClone({ secret })),
    JSON.stringify(Object.getOwnPropertyNames(secret)),
    // biome-ignore lint/style/useTemplate: joining by `+` is another conversion.
    "" + (secret as unknown as string),
    JSON.stringify({ ...secret }),
  ];
  for (const text of shown) assert.doesNotMatch(text, /hunter2|104, ?117/);
  const bytes = serialize({ secret, nested: new Map([["secret", secret]]) });
  assert.ok(!bytes.includes("hunter2"));
  assert.doesNotMatch(inspect(deserialize(bytes), { depth: 9, showHidden: true }), /hunter2|104, ?117/);
  const error = new Error(`with ${secret}`, { cause: secret });
  const all = new AggregateError([error], "several", { cause: { secret, errors: [error] } });
  for (const depth of [0, 9, Infinity]) {
    const options = { depth, showHidden: true, getters: true, showProxy: true };
    for (const it of [error, all, [secret], new Proxy(secret, {}), new WeakSet([secret]), { secret }])
      assert.doesNotMatch(inspect(it, options), /hunter2|104, ?117|68 75 6e/);
  }
  assert.throws(
    () => assert.deepStrictEqual({ secret }, { secret: 1 }),
    (why) => !/hunter2|104, ?117/.test(inspect(why, { depth: 9 })),
  );
  assert.equal(String(secret), CONCEALED);
  assert.equal(secret.expose(), "hunter2");
  assert.deepEqual(secret.exposeBytes(), Uint8Array.from(Buffer.from("hunter2")));
  secret.exposeBytes().fill(0);
  assert.equal(secret.expose(), "hunter2");
  secret.wipe();
  assert.equal(secret.expose(), "");
});

test("a secret shows itself on no console", () => {
  const script = `
    import { Secret } from "valetkey";
    const secret = new Secret(Buffer.from(process.env.VALUE));
    for (const say of ["log", "info", "warn", "error", "debug", "dir", "dirxml"]) console[say](secret, { secret });
    console.dir({ secret }, { showHidden: true, depth: null });
    console.table([{ secret }]);
    console.log("%s %o %O %j", secret, secret, secret, secret);
    throw new Error("uncaught", { cause: secret });`;
  const words = ["--input-type=module", "--eval", script];
  const env = { ...process.env, VALUE: "hunter2" };
  const { stdout, stderr, status } = spawnSync(process.execPath, words, { cwd: PACKAGE, encoding: "utf8", env });
  assert.equal(status, 1);
  assert.match(stderr, /uncaught/);
  assert.match(stdout, /<concealed by valetkey>/);
  assert.doesNotMatch(stdout + stderr, /hunter2|104, ?117/);
});

test("what is no text is not turned into another value", () => {
  const secret = new Secret(Uint8Array.from([0xff, 0xfe]));
  assert.throws(() => secret.expose(), TypeError);
  assert.deepEqual([...secret.exposeBytes()], [0xff, 0xfe]);
  assert.equal(new Secret(Buffer.from("\ufeffa")).expose(), "\ufeffa");
});

test("the version is that of the package", () => {
  assert.equal(JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf8")).version, VERSION);
});
