/** The two tools. They know nothing of vaults or brokers: they take credentials and use them. */

import { jsonSchema, tool } from "ai";
import type { Services } from "./services.js";

const text = { type: "string" } as const;

type Booking = Record<
  "from" | "to" | "navan_username" | "navan_password" | "card_number" | "card_expiry" | "card_code",
  string
>;

export function bookFlight(services: Services) {
  return tool({
    description: "Books a flight with Navan and pays it with the card",
    inputSchema: jsonSchema<Booking>({
      type: "object",
      properties: {
        from: text,
        to: text,
        navan_username: text,
        navan_password: text,
        card_number: text,
        card_expiry: text,
        card_code: text,
      },
    }),
    execute: async ({ navan_username, navan_password, ...order }: Booking) =>
      await post(services.navan, navan_username, navan_password, order),
  });
}

type Expense = Record<"amount" | "confirmation" | "ramp_username" | "ramp_password", string>;

export function submitExpense(services: Services) {
  return tool({
    description: "Files an expense with Ramp",
    inputSchema: jsonSchema<Expense>({
      type: "object",
      properties: { amount: text, confirmation: text, ramp_username: text, ramp_password: text },
    }),
    execute: async ({ ramp_username, ramp_password, ...expense }: Expense) =>
      await post(services.ramp, ramp_username, ramp_password, expense),
  });
}

async function post(url: string, username: string, password: string, body: object): Promise<unknown> {
  const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
  const response = await fetch(url, { method: "POST", headers: { authorization }, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${username} is refused with ${response.status}`);
  return await response.json();
}
