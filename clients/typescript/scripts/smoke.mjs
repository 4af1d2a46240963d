// Tries an installed package from a folder that has nothing else: everything that it promises is there, and works.
import assert from "node:assert/strict";
import { existsSync, lstatSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Broker, Secret, VERSION } from "valetkey";
import { Guard } from "valetkey/ai";
import { createClient } from "valetkey/onepassword";
import { FakeBroker } from "valetkey/testing";

const home = new URL("./node_modules/valetkey/", import.meta.url);
for (const file of ["README.md", "SKILL.md", "LICENSE", "dist/index.d.ts", "dist/ai.d.ts", "dist/onepassword.d.ts"]) {
  assert.ok(existsSync(new URL(file, home)), `${file} is not in the package`);
}
const isLink = lstatSync(fileURLToPath(home).replace(/[/]$/, "")).isSymbolicLink();
for (const folder of ["src", "test", "build", "node_modules"]) {
  assert.ok(isLink || !existsSync(new URL(folder, home)), `${folder} has no business in a package`);
}
const manifest = JSON.parse(readFileSync(new URL("package.json", home), "utf8"));
assert.equal(manifest.version, VERSION);
for (const it of [Broker, Secret, createClient, Guard]) assert.equal(typeof it, "function");

const fake = new FakeBroker().allow("op://Travel/Navan/password", "hunter2");
const lease = await fake.agent().lease({ password: "op://Travel/Navan/password" }, { tool: "book", purpose: "try it" });
const secret = await lease.get("password").redeem({ with: fake.tool("book") });
assert.equal(secret.expose(), "hunter2");
await lease.release();
console.log(`valetkey ${VERSION} works`);
