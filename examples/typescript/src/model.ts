/** A scripted model: it knows what stands in its prompt and nothing else, as a real one would. */

import { generateText, isStepCount, type ToolSet } from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { instructions, TASK } from "./trip.js";

/** Lets the model do the task; everything that it was shown and has said. */
export async function play(credentials: Readonly<Record<string, string>>, tools: ToolSet): Promise<string> {
  const model = scripted();
  const system = instructions(credentials);
  const result = await generateText({ model, instructions: system, prompt: TASK, tools, stopWhen: isStepCount(5) });
  const shown = model.doGenerateCalls.at(-1)?.prompt ?? [];
  const lines = shown.map(({ role, content }) => `${role}: ${typeof content === "string" ? content : line(content)}`);
  return [...lines, `assistant: ${result.text}`].join("\n");
}

function scripted(): MockLanguageModelV4 {
  return new MockLanguageModelV4({
    doGenerate: async ({ prompt }) => {
      const text = JSON.stringify(prompt);
      // How a model knows a credential: it reads it in its prompt.
      const credential = (name: string) => new RegExp(`${name}: (.*?)(\\\\n|")`).exec(text)?.[1] ?? "";
      const all = (...names: string[]) => Object.fromEntries(names.map((name) => [name, credential(name)]));
      if (!text.includes("NV-4711")) {
        const login = all("navan_username", "navan_password", "card_number", "card_expiry", "card_code");
        return call("book_flight", { from: "BER", to: "LIS", ...login });
      }
      if (!text.includes("RP-0815")) {
        const login = all("ramp_username", "ramp_password");
        return call("submit_expense", { amount: "184.20 EUR", confirmation: "NV-4711", ...login });
      }
      return answer([{ type: "text", text: "Booked as NV-4711, and filed as RP-0815." }], "stop");
    },
  });
}

type Answer = Awaited<ReturnType<MockLanguageModelV4["doGenerate"]>>;

function call(toolName: string, input: object): Answer {
  return answer([{ type: "tool-call", toolCallId: toolName, toolName, input: JSON.stringify(input) }], "tool-calls");
}

function answer(content: Answer["content"], unified: Answer["finishReason"]["unified"]): Answer {
  const inputTokens = { total: 0, noCache: 0, cacheRead: undefined, cacheWrite: undefined };
  const outputTokens = { total: 0, text: 0, reasoning: undefined };
  return { content, finishReason: { unified, raw: undefined }, usage: { inputTokens, outputTokens }, warnings: [] };
}

function line(content: readonly object[]): string {
  return content.map((part) => JSON.stringify({ ...part, providerOptions: undefined })).join(" ");
}
