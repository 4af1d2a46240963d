/** What a concealer finds, and what it leaves alone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { CONCEALED, Secret } from "valetkey";
import { Concealer } from "../src/conceal.js";

test("values are concealed in whatever form", () => {
  const concealer = new Concealer();
  const value = 'h"nter2 + påss/word?';
  concealer.add(value);
  concealer.add("4111111111111111");
  concealer.add("");
  const bytes = Buffer.from(value);
  const forms = [
    value,
    JSON.stringify(value),
    encodeURIComponent(value),
    new URLSearchParams({ value }).toString(),
    bytes.toString("base64"),
    bytes.toString("base64url"),
    bytes.toString("hex"),
    ...["u:", "us:", "use:"].map((before) => Buffer.from(`${before}${value}`).toString("base64")),
    Buffer.from(`u:${value}:more`).toString("base64"),
  ];
  for (const form of forms) assert.match(concealer.text(`a ${form} b`), /^a .*<concealed by valetkey>.* b$/, form);
  const told = concealer.data({
    [value]: [
      value,
      new Map([[value, 1]]),
      new Set([value]),
      bytes,
      new Secret(bytes),
      new URL(`https://x/${encodeURIComponent(value)}`),
    ],
    card: 4111111111111111,
    kept: [1, true, null, undefined, new Date(0), "text"],
    error: new Error(value, { cause: value }),
  });
  assert.doesNotMatch(inspect(told, { depth: 9, showHidden: true }), /nter2|4111/);
  assert.match(
    inspect(told, { depth: 9 }),
    /kept: \[ 1, true, null, undefined, '1970-01-01T00:00:00\.000Z', 'text' \]/,
  );
  const plain = new TypeError("nothing in it");
  assert.equal(concealer.error(plain), plain);
  const ring: Record<string, unknown> = { value };
  ring.self = ring;
  assert.doesNotMatch(inspect(concealer.data(ring), { depth: 99 }), /nter2/);
});

function knowing(...values: string[]): Concealer {
  const concealer = new Concealer();
  for (const value of values) concealer.add(value);
  return concealer;
}

const base64 = (text: string) => Buffer.from(text).toString("base64");

test("a short password is found in what a login makes of it, to its first and last bit", () => {
  for (const [user, password] of [
    ["user", "hunter2"],
    ["bob", "s3cr3t"],
    ["al", "Tr0ub4d0"],
    ["user", "Tr0ub4dor3"],
    ["admin", "Passw0rd"],
  ] as const) {
    const shown = knowing(password).text(`Basic ${base64(`${user}:${password}`)}`);
    assert.match(shown, /^Basic [A-Za-z0-9]*<concealed by valetkey>=*$/, shown);
    const left = /^Basic (\w*)/.exec(shown)?.[1] ?? "";
    // What is left says something of the user alone.
    assert.ok(left.length * 6 <= (user.length + 1) * 8, shown);
  }
});

test("spellings differ in what does not count", () => {
  const value = "p&s's/<w>+å\"";
  const strict = encodeURIComponent(value).replace("'", "%27");
  const html = "p&amp;s&#39;s/&lt;w&gt;+å&quot;";
  for (const form of [
    Buffer.from(value).toString("hex").toUpperCase(),
    strict,
    strict.toLowerCase(),
    strict.replace("%2F", "/"),
    html,
    html.replace("&#39;", "&#x27;"),
    "p&amp;s's/&lt;w&gt;+å\"",
    JSON.stringify(value).replace("å", "\\u00E5"),
    JSON.stringify(value).replace("å", "\\u00e5"),
  ]) {
    assert.equal(knowing(value).text(`${form}`).replace(/^"|"$/g, ""), CONCEALED, form);
  }
  const token = "sk/live+0123456789abcdef";
  for (const form of [
    token.replace("/", "\\/"),
    base64(token).replace(/.{8}/g, "$&\n").trim(),
    "sk/live+ 01234567\n89abcdef",
  ]) {
    assert.equal(knowing(token).text(`<${form}>`), `<${CONCEALED}>`, form);
  }
  assert.equal(knowing("abcdefgh", "efghijkl").text("-abcdefghijkl-"), `-${CONCEALED}-`);
  // What is short is not looked for across words.
  assert.equal(knowing("4471").text("44 71"), "44 71");
});

test("a key is found line by line, indented, and wrapped", () => {
  const lines = ["AAAAB3NzaC1yc2EAAAADAQABAAABAQ01", "AAAAB3NzaC1yc2EAAAADAQABAAABAQ02"];
  const key = `-----BEGIN KEY-----\n${lines.join("\n")}\n-----END KEY-----\n`;
  const shows = (it: unknown) => /BAQ0|QUFBQU|LS0tLS1C/.test(inspect(it, { depth: 9 }));
  for (const made of [
    key,
    key.split("\n"),
    key.replaceAll("\n", "\r\n"),
    key.replaceAll("\n", "\n  "),
    key.replaceAll("\n", " "),
    JSON.stringify({ key }),
    encodeURIComponent(lines[1] ?? ""),
    base64(key).replace(/.{76}/g, "$&\n"),
    base64(key).replace(/.{64}/g, "$&\r\n"),
    JSON.stringify(base64(key).replace(/.{76}/g, "$&\n")),
    base64(lines[0] ?? ""),
    Buffer.from(key),
    Buffer.from(key, "utf16le"),
    new Uint8Array(Buffer.from(key)).buffer,
  ]) {
    assert.ok(!shows(knowing(key).data(made)), inspect(made));
  }
  assert.match(knowing(key).text("-----BEGIN KEY-----\nother\n"), /BEGIN KEY/);
});

test("what is thrown shows no value, wherever in it", () => {
  const value = "hunter2-geheim";
  const key = "first line of a key\nsecond line of a key";
  const many = [...Array(150).fill("x"), value];
  const hidden = new Error("hidden");
  Object.defineProperty(hidden, "config", { value: { value }, enumerable: false });
  const custom = Object.assign(new Error("custom"), { [Symbol("body")]: { value } });
  for (const error of [
    Object.assign(new Error("long"), { rows: many }),
    Object.assign(new Error("bytes"), { body: Buffer.from("x".repeat(60) + value) }),
    Object.assign(new Error("buffer"), { body: new Uint8Array(Buffer.from(value)).buffer }),
    Object.assign(new Error("deep"), { config: { key } }),
    Object.assign(new Error("map"), { map: new Map([["a", new Set([value])]]) }),
    new Error("cause", { cause: new Error(value) }),
    new AggregateError([new Error("one"), new Error(value)], "several"),
    hidden,
    custom,
    { rows: many },
    value,
    new Error("proto", { cause: { [value]: 1 } }),
  ]) {
    const thrown = knowing(value, key).error(error);
    assert.ok(thrown instanceof Error && thrown !== error, inspect(error));
    assert.ok(!knowing(value, key).shows(thrown), inspect(thrown));
  }
  assert.deepEqual(knowing(value).data({ boxed: new String(`a ${value}`) }), { boxed: `a ${CONCEALED}` });
});

test("what leads back to itself many times takes no longer for it", () => {
  const ring: Record<string, unknown> = { value: "hunter2" };
  for (const name of ["a", "b", "c"]) ring[name] = ring;
  let tree: unknown[] = ["hunter2"];
  for (let n = 0; n < 30; n += 1) tree = [tree, tree];
  assert.deepEqual(knowing("hunter2").data(ring), { value: CONCEALED, a: CONCEALED, b: CONCEALED, c: CONCEALED });
  assert.ok(Array.isArray(knowing("hunter2").data(tree)));
});
