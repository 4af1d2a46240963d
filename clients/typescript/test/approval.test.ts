/** What waits for a person: said once, with what to approve and where, and granted once they have. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { generateText, isStepCount, jsonSchema, tool } from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { ApprovalRequiredError, type Broker } from "valetkey";
import { Guard } from "valetkey/ai";
import { createClient } from "valetkey/onepassword";
import { FakeBroker } from "valetkey/testing";
import { thrown } from "./harness.js";

const REFERENCE = "op://Travel/Card/number";
const OTHER = "op://Travel/Navan/password";
const URL = "https://valetkey.example.com/approve";
const ASK = { tool: "book", purpose: "pay the flight" } as const;
const VALUE = "4111111111111111";

function waiting(url?: string): FakeBroker {
  return new FakeBroker().allow(REFERENCE, VALUE).allow(OTHER, "hunter2").requireApproval(REFERENCE, url);
}

test("a lease waits for a person, is not asked for again by itself, and is granted afterwards", async () => {
  await using fake = waiting(URL);
  const agent = fake.agent();
  const error = await thrown(ApprovalRequiredError, agent.lease({ number: REFERENCE }, ASK));
  assert.match(error.approvalId, /^vkl_[0-9a-v]{16}$/);
  assert.equal(error.url, URL);
  assert.equal(error.reference, REFERENCE);
  assert.equal(error.reason, "APPROVAL_REQUIRED");
  assert.match(error.recordId ?? "", /^\d+$/);
  assert.ok(error.message.includes(URL) && error.message.includes(`valetkey approval approve ${error.approvalId}`));
  assert.deepEqual(
    fake.calls.map(({ kind, refusal }) => [kind, refusal]),
    [["acquire", "APPROVAL_REQUIRED"]],
  );
  assert.throws(() => fake.approve("vkl_other"), TypeError);
  fake.approve(error.approvalId);
  await using lease = await agent.lease({ number: REFERENCE }, ASK);
  assert.equal((await lease.get("number").redeem({ with: fake.tool("book") })).expose(), VALUE);
});

test("a broker may not know a place to approve", async () => {
  await using fake = waiting();
  const error = await thrown(ApprovalRequiredError, fake.agent().lease({ number: REFERENCE }, ASK));
  assert.equal(error.url, undefined);
  assert.match(error.message, /ask one to run `valetkey approval approve vkl_/);
});

test("a partial lease says which of its references waits, and a check that it would", async () => {
  await using fake = waiting();
  const agent = fake.agent();
  await using lease = await agent.lease({ number: REFERENCE, password: OTHER }, { ...ASK, partial: true });
  const error = lease.get("number").failure;
  assert.ok(error instanceof ApprovalRequiredError);
  assert.equal(error.reference, REFERENCE);
  assert.throws(() => lease.get("number").handle, error);
  assert.equal((await lease.get("password").redeem({ with: fake.tool("book") })).expose(), "hunter2");
  const { allowed, approvalRequired } = await agent.check(REFERENCE, ASK);
  assert.deepEqual([allowed, approvalRequired], [true, true]);
  fake.approve(error.approvalId);
  await using again = await agent.lease({ number: REFERENCE }, ASK);
  assert.match(again.get("number").handle, /^vkh_/);
});

test("an approval whose time is over ends a lease that has to ask again", async () => {
  await using fake = new FakeBroker().allow(REFERENCE, VALUE);
  const lease = await fake.agent().lease({ number: REFERENCE }, ASK);
  fake.requireApproval(REFERENCE, URL).drain();
  const why = await lease.ended;
  assert.equal(why?.end, "refused");
  assert.ok(why?.cause instanceof ApprovalRequiredError);
  assert.match(why.message, /a person must approve this first/);
});

test("code for 1Password's SDK is told as well", async () => {
  await using fake = waiting(URL).redeemByAgent();
  const config = { integrationName: "book", integrationVersion: "v1", broker: fake.agent() };
  const { secrets } = await createClient(config);
  const { approvalId } = await thrown(ApprovalRequiredError, secrets.resolve(REFERENCE));
  const { individualResponses } = await secrets.resolveAll([REFERENCE, OTHER]);
  const { type, reason, message } = individualResponses[REFERENCE]?.error ?? {};
  assert.deepEqual([type, reason], ["other", "APPROVAL_REQUIRED"]);
  assert.ok(message?.includes(approvalId));
  assert.equal(individualResponses[OTHER]?.content?.secret, "hunter2");
  fake.approve(approvalId);
  assert.equal(await secrets.resolve(REFERENCE), VALUE);
});

test("a model is told to ask a person, and where, and gets it done once they have approved", async () => {
  await using fake = waiting(URL);
  const got: string[] = [];
  const scripted = caller(() => {
    // The person reads what the model says to them.
    const told = JSON.stringify(scripted.doGenerateCalls.at(-1)?.prompt);
    assert.ok(told.includes(`a person must approve this first; ask one to open ${URL}`), told);
    fake.approve(/approval approve (vkl_\w+)/.exec(told)?.[1] ?? "");
  });
  const tools = paying(got, fake.agent(), fake.tool("book"));
  const result = await generateText({ model: scripted, tools, prompt: "pay", stopWhen: isStepCount(5) });
  assert.equal(result.text, "paid");
  assert.deepEqual(got, [VALUE]);
  assert.ok(!JSON.stringify([result.steps, scripted.doGenerateCalls]).includes(VALUE));
});

test("no handle is spent before a person has approved the rest", async () => {
  await using fake = waiting(URL);
  await using lease = await fake.agent().lease({ password: OTHER }, ASK);
  const pay = { execute: async (input: { password: string; card: string }) => Object.values(input).join().length };
  const book = { name: "book", fields: ["password", "card"], redeemWith: fake.tool("book") };
  const wrapped = new Guard(fake.agent(), { pay: book }).wrap({ pay }).pay;
  const input = { password: lease.get("password").handle, card: REFERENCE };
  const { approvalId } = await thrown(ApprovalRequiredError, wrapped.execute(input));
  fake.approve(approvalId);
  assert.equal(await wrapped.execute(input), `hunter2,${VALUE}`.length);
});

function paying(got: string[], broker: Broker, asTool: Broker) {
  const pay = tool({
    inputSchema: jsonSchema<{ card: string }>({ type: "object", properties: { card: { type: "string" } } }),
    execute: async ({ card }) => {
      got.push(card);
      return `paid with ${card}`;
    },
  });
  return new Guard(broker, { pay: { name: "book", fields: ["card"], redeemWith: asTool } }).wrap({ pay });
}

/** A model that calls the tool, asks a person where that fails, and calls it again. */
function caller(ask: () => void): MockLanguageModelV4 {
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: 1, text: 1, reasoning: undefined },
  };
  let step = 0;
  return new MockLanguageModelV4({
    doGenerate: async () => {
      step += 1;
      if (step === 2) ask();
      const call = { type: "tool-call" as const, toolCallId: `${step}`, toolName: "pay" };
      return {
        content:
          step < 3
            ? [{ ...call, input: JSON.stringify({ card: REFERENCE }) }]
            : [{ type: "text" as const, text: "paid" }],
        finishReason: { unified: step < 3 ? ("tool-calls" as const) : ("stop" as const), raw: undefined },
        usage,
        warnings: [],
      };
    },
  });
}
