/** Code written for 1Password's SDK, with another import. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { inspect, promisify } from "node:util";
import { ConfigurationError, DeniedError, InvalidRequestError, PreconditionError } from "valetkey";
import { AuthExpiredError, createClient, DesktopAuth, Secrets } from "valetkey/onepassword";
import { BOOKING, NAVAN, NAVAN_PASSWORD, PACKAGE, TestBroker, thrown } from "./harness.js";

let broker: TestBroker;
/** As in the vault of the travel story. */
const VAULT = "tutorialxxxxxxxxxxxxxxxxxx";
const ITEM = "navanxxxxxxxxxxxxxxxxxxxxx";
const INTEGRATION = { integrationName: "My 1Password Integration", integrationVersion: "v1.0.0" };

before(async () => {
  broker = await TestBroker.start("", "");
  const agent = broker.as("travel-bot");
  // The signal that loads policies would end a broker that has only just begun to listen.
  await agent.check(NAVAN.password, BOOKING);
  broker.policy("travel.cedar", (text) => text + AGENT_REDEEMS);
  for (let n = 0; n < 800; n += 1) {
    if ((await agent.check(NAVAN.password, { tool: "My-1Password-Integration" })).allowed) break;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  await agent.close();
});

after(() => broker[Symbol.asyncDispose]());

async function client(name = "travel-bot") {
  return await createClient({ ...INTEGRATION, broker: broker.as(name) });
}

test("the README's examples run with another import, and end by themselves", async () => {
  const example = (auth: string) => `
const sdk = require("valetkey/onepassword");

async function main() {
  // Creates an authenticated client.
  const client = await sdk.createClient({
    auth: ${auth},
    // Set the following to your own integration name and version.
    integrationName: "My 1Password Integration",
    integrationVersion: "v1.0.0",
  });

  // Fetches a secret.
  const secret = await client.secrets.resolve("${NAVAN.password}");
  console.log(secret);
}

main()
`;
  const folder = mkdtempSync(join(tmpdir(), "valetkey-example-"));
  try {
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(PACKAGE, join(folder, "node_modules/valetkey"));
    writeFileSync(join(folder, "example.js"), example("process.env.OP_SERVICE_ACCOUNT_TOKEN"));
    writeFileSync(join(folder, "desktop.js"), example('new sdk.DesktopAuth("your-account-name")'));
    const run = (more: Record<string, string>, file = "example.js") =>
      promisify(execFile)(process.execPath, [join(folder, file)], {
        env: { ...process.env, ...broker.env("travel-bot"), ...more },
        timeout: 20_000,
      });
    assert.equal((await run({})).stdout, `${NAVAN_PASSWORD}\n`);
    // A service account's token goes nowhere, and is said to be one too many.
    for (const token of ["ops_hunter2", '"ops_hunter2"', "OPS_hunter2"]) {
      const { stdout, stderr } = await run({ OP_SERVICE_ACCOUNT_TOKEN: token });
      assert.equal(stdout, `${NAVAN_PASSWORD}\n`);
      assert.match(stderr, /take a service account's token out of this environment/);
      assert.doesNotMatch(stderr, /hunter2/);
    }
    const desktop = await run({}, "desktop.js");
    assert.equal(desktop.stdout, `${NAVAN_PASSWORD}\n`);
    assert.match(desktop.stderr, /`auth` is not needed/);
    // A token of the broker's in its place is one.
    const own = {
      VALETKEY_TOKEN: "",
      VALETKEY_TOKEN_FILE: "/nowhere",
      OP_SERVICE_ACCOUNT_TOKEN: broker.token("travel-bot"),
    };
    assert.equal((await run(own)).stdout, `${NAVAN_PASSWORD}\n`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("what is no token of a broker's is sent to none", async () => {
  for (const auth of ["your-token", "op_hunter2", "Bearer vkt_a"]) {
    await assert.rejects(createClient({ ...INTEGRATION, auth }), (error) => {
      return error instanceof ConfigurationError && !inspect(error).includes("hunter2");
    });
  }
});

test("each call is a lease, a redeem and an end", async () => {
  const { secrets } = await client();
  assert.equal(await secrets.resolve(NAVAN.password), NAVAN_PASSWORD);
  const log = broker.audit("agent:travel-bot tool:My-1Password-Integration");
  for (const kind of ["acquire", "redeem"]) assert.match(log, new RegExp(kind));
});

test("all of several, or why not", async () => {
  const { secrets } = await client();
  const { individualResponses } = await secrets.resolveAll([
    NAVAN.username,
    NAVAN.password,
    NAVAN.password,
    "op://Tutorial/Navan/nothing",
    "op://Tutorial/Nobody/password",
    "op://Production/Database/password",
    "nonsense",
    "__proto__",
  ]);
  const answer = (reference: string) => individualResponses[reference];
  assert.equal(Object.keys(individualResponses).length, 7);
  assert.equal(answer(NAVAN.password)?.content?.secret, NAVAN_PASSWORD);
  assert.equal(answer(NAVAN.username)?.content?.secret, "demo-navan-user@travel.example");
  assert.equal(answer("op://Tutorial/Navan/nothing")?.error?.type, "fieldNotFound");
  assert.equal(answer("op://Tutorial/Nobody/password")?.error?.type, "itemNotFound");
  assert.equal(answer("op://Production/Database/password")?.error?.reason, "ACCESS_DENIED");
  assert.equal(answer("nonsense")?.error?.type, "parsing");
  assert.equal(answer(NAVAN.password)?.content?.itemId, "");
});

test("ids are told where the reference has them", async () => {
  const { secrets } = await client();
  const reference = `op://${VAULT}/${ITEM}/password`;
  const { individualResponses } = await secrets.resolveAll([reference]);
  const { secret, vaultId, itemId } = individualResponses[reference]?.content ?? {};
  assert.deepEqual([secret, vaultId, itemId], [NAVAN_PASSWORD, VAULT, ITEM]);
});

test("what fails has the SDK's classes where it has any", async () => {
  await thrown(DeniedError, (await client("notes-bot")).secrets.resolve(NAVAN.password));
  const nobody = await createClient({ ...INTEGRATION, broker: broker.as("ana", { token: "vkt_a" }) });
  await thrown(AuthExpiredError, nobody.secrets.resolve(NAVAN.password));
  assert.throws(() => Secrets.validateSecretReference("op://vault/item"), InvalidRequestError);
  Secrets.validateSecretReference("op://vault/item/section/field?attribute=otp");
  const { secrets, ...others } = await client();
  assert.deepEqual(others, {});
  const asked = await client();
  assert.throws(() => asked.items, PreconditionError);
  assert.ok(new DesktopAuth("my-account").accountName);
});

test("a tool of its own redeems where the agent may not", async () => {
  const both = { broker: broker.as("travel-bot"), with: broker.as("navan.book_flight"), tool: BOOKING.tool };
  const { secrets } = await createClient({ ...INTEGRATION, ...both });
  assert.equal(await secrets.resolve(NAVAN.password), NAVAN_PASSWORD);
  const alone = await createClient({ ...INTEGRATION, broker: both.broker, tool: BOOKING.tool });
  await thrown(PreconditionError, alone.secrets.resolve(NAVAN.password));
});

const AGENT_REDEEMS = `
@id("test-agent-acquires")
@redeem_by("agent")
permit (principal in Team::"travel", action == Action::"acquire", resource in Vault::"tutorial")
when { context.tool == Tool::"My-1Password-Integration" }
unless { resource in Item::"tutorial/travel card" };

@id("test-agent-redeems")
permit (principal in Team::"travel", action == Action::"redeem", resource in Vault::"tutorial")
when { context.tool == Tool::"My-1Password-Integration" };
`;
