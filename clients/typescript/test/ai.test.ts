/** The real AI SDK with a scripted model: nothing that it keeps, sends or reports ever holds a value. */

import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { after, before, test } from "node:test";
import { inspect } from "node:util";
import { generateText, isStepCount, jsonSchema, registerTelemetry, streamText, tool } from "ai";
import { MockLanguageModelV4, simulateReadableStream } from "ai/test";
import type { Broker } from "valetkey";
import { CONCEALED } from "valetkey";
import { Guard, type GuardedTool } from "valetkey/ai";
import { BOOKING, eventually, NAVAN, NAVAN_PASSWORD, shown, TestBroker } from "./harness.js";

let broker: TestBroker;
let agent: Broker;
let asTool: Broker;
const seen: unknown[] = [];
const note = (message: unknown) => seen.push(message);

before(async () => {
  broker = await TestBroker.start();
  agent = broker.as("travel-bot");
  asTool = broker.as("navan.book_flight");
  subscribe("ai:telemetry", note);
  // An integration that listens to everything there is.
  const listener = new Proxy(
    {},
    {
      get: (_, name) =>
        String(name).startsWith("on") ? (...words: unknown[]) => void seen.push([name, ...words]) : undefined,
    },
  );
  registerTelemetry(listener as Parameters<typeof registerTelemetry>[0]);
});

after(async () => {
  unsubscribe("ai:telemetry", note);
  await agent.close();
  await asTool.close();
  await broker[Symbol.asyncDispose]();
});

interface Login {
  username: string;
  password: string;
}

/** A tool that repeats everything that it is told, in every form it can think of. */
function booking(got: Login[], options: Partial<GuardedTool> = {}) {
  const chatty = tool({
    description: "books a flight",
    inputSchema: jsonSchema<Login>({ type: "object", properties: { username: {}, password: {} } }),
    execute: async (login: Login) => {
      got.push(login);
      if (login.username === "fail") throw new Error(`login as ${login.password} failed`, { cause: login });
      const basic = Buffer.from(`${login.username}:${login.password}`).toString("base64");
      return {
        booked: "LIS",
        echo: login,
        header: `Basic ${basic}`,
        url: `https://x/?p=${encodeURIComponent(login.password)}`,
      };
    },
  });
  return guarded({ book: chatty }, options);
}

/** These tools, of which `book` gets values. */
function guarded<T extends { book: object }>(tools: T, options: Partial<GuardedTool> = {}): T {
  const { tool: name, purpose } = BOOKING;
  const book = { name, purpose, fields: ["username", "password"], redeemWith: asTool, ...options };
  return new Guard(agent, { book }).wrap(tools);
}

type Part = Awaited<ReturnType<MockLanguageModelV4["doStream"]>>["stream"] extends ReadableStream<infer P> ? P : never;

/** A model that calls the tool with each of these inputs, and then says something. */
function model(inputs: object[]): MockLanguageModelV4 {
  const usage = {
    inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: 1, text: 1, reasoning: undefined },
  };
  let step = 0;
  const next = () => {
    const input = inputs[step++];
    return input === undefined
      ? {
          content: [{ type: "text" as const, text: "done" }],
          finishReason: { unified: "stop" as const, raw: undefined },
        }
      : {
          content: [
            { type: "tool-call" as const, toolCallId: `call-${step}`, toolName: "book", input: JSON.stringify(input) },
          ],
          finishReason: { unified: "tool-calls" as const, raw: undefined },
        };
  };
  return new MockLanguageModelV4({
    doGenerate: async () => ({ ...next(), usage, warnings: [] }),
    doStream: async () => {
      const { content, finishReason } = next();
      const parts = content.flatMap((part): Part[] =>
        part.type === "text"
          ? [
              { type: "text-start" as const, id: "1" },
              { type: "text-delta" as const, id: "1", delta: part.text },
              { type: "text-end" as const, id: "1" },
            ]
          : [part],
      );
      return {
        stream: simulateReadableStream({ chunks: [...parts, { type: "finish" as const, finishReason, usage }] }),
      };
    },
  });
}

/** Nothing in it shows the password, in any form. */
function holdsNoValue(...all: unknown[]): void {
  const text = inspect([...all, seen], {
    depth: 30,
    showHidden: true,
    maxStringLength: null,
    maxArrayLength: null,
    breakLength: Infinity,
  });
  const forms = [NAVAN_PASSWORD, Buffer.from(NAVAN_PASSWORD).toString("base64").slice(4, -8)];
  for (const form of forms)
    assert.ok(
      !text.includes(form),
      `a value was seen: ${text.slice(Math.max(0, text.indexOf(form) - 300), text.indexOf(form) + 40)}`,
    );
}

test("the model writes handles and references, the tool gets values, and nobody else does", async () => {
  await using lease = await agent.lease(NAVAN, BOOKING);
  const got: Login[] = [];
  const scripted = model([
    { username: lease.get("username").handle, password: ` ${lease.get("password").handle}\n` },
    { username: "somebody", password: NAVAN.password },
  ]);
  const tools = booking(got);
  const result = await generateText({ model: scripted, tools, prompt: "book", stopWhen: isStepCount(5) });
  assert.deepEqual(got, [
    { username: "demo-navan-user@travel.example", password: NAVAN_PASSWORD },
    { username: "somebody", password: NAVAN_PASSWORD },
  ]);
  holdsNoValue(result, result.steps, result.response.messages, scripted.doGenerateCalls);
  const shown = JSON.stringify(scripted.doGenerateCalls.at(-1)?.prompt);
  assert.match(shown, /vkh_/);
  assert.ok(shown.includes(CONCEALED));
  assert.equal(result.text, "done");
  assert.ok(seen.length > 0, "nobody listened");
});

test("streams too, and what fails", async () => {
  const got: Login[] = [];
  const scripted = model([
    { username: "fail", password: NAVAN.password },
    { username: "a", password: "op://Production/Database/password" },
  ]);
  const result = streamText({
    model: scripted,
    tools: booking(got),
    prompt: "book",
    stopWhen: isStepCount(5),
  });
  const parts: unknown[] = [];
  for await (const part of result.fullStream) parts.push(part);
  assert.equal(got.length, 1);
  holdsNoValue(parts, await result.steps, await result.response, scripted.doStreamCalls);
  const told = inspect(parts, { depth: 9 });
  assert.ok(told.includes(`login as ${CONCEALED} failed`), told);
  // A refusal is something that the model can act on.
  assert.match(told, /access denied for `op:\/\/Production\/Database\/password`/);
});

test("a tool that streams is concealed part by part", async () => {
  const streaming = tool({
    inputSchema: jsonSchema<Login>({ type: "object" }),
    async *execute({ password }: Login) {
      yield `with ${password}`;
      yield { final: password };
    },
  });
  const scripted = model([{ username: "a", password: NAVAN.password }]);
  const tools = guarded({ book: streaming });
  const result = streamText({ model: scripted, tools, prompt: "book", stopWhen: isStepCount(3) });
  const parts: unknown[] = [];
  for await (const part of result.fullStream) parts.push(part);
  holdsNoValue(parts, await result.steps);
  assert.match(inspect(parts, { depth: 9 }), /final: '<concealed by valetkey>'/);
});

test("a handle that was renewed since the model was told is as good as the fresh one", async () => {
  await using lease = await agent.lease(NAVAN, { ...BOOKING, ttl: 2 });
  const { handle } = lease.get("password");
  const seen = new Set([handle]);
  await eventually("two renewals", () => shown(lease, seen) >= 3);
  const got: Login[] = [];
  const tools = booking(got);
  await generateText({
    model: model([{ username: "a", password: handle }]),
    tools,
    prompt: "book",
    stopWhen: isStepCount(3),
  });
  assert.equal(got[0]?.password, NAVAN_PASSWORD);
});

test("a model names only what it may", async () => {
  const got: Login[] = [];
  const tools = booking(got, { references: [NAVAN.username] });
  const scripted = model([{ username: NAVAN.username, password: NAVAN.password }]);
  await generateText({ model: scripted, tools, prompt: "book", stopWhen: isStepCount(3) });
  assert.equal(got.length, 0);
  assert.match(JSON.stringify(scripted.doGenerateCalls), /this tool takes op:\/\/Tutorial\/Navan\/username/);
  assert.throws(() => guarded({ book: {} }), TypeError);
});

test("a secret goes where secrets go, and nowhere else", async () => {
  const got: Login[] = [];
  const tools = booking(got, { fields: ["password"] });
  const scripted = model([{ username: NAVAN.username, password: NAVAN.password }]);
  await generateText({ model: scripted, tools, prompt: "book", stopWhen: isStepCount(3) });
  assert.deepEqual(got, [{ username: NAVAN.username, password: NAVAN_PASSWORD }]);
});
