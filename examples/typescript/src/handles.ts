/** With valetkey: the model is handed handles, and each tool redeems its own. */

import type { Broker, Lease } from "valetkey";
import { Guard } from "valetkey/ai";
import { play } from "./model.js";
import type { Services } from "./services.js";
import { bookFlight, submitExpense } from "./tools.js";
import { NAVAN, RAMP } from "./trip.js";

/** The same broker, as each of them sees it. */
export interface Brokers {
  agent: Broker;
  navan: Broker;
  ramp: Broker;
}

export async function handles(services: Services, { agent, navan, ramp }: Brokers): Promise<string> {
  const booking = { tool: "navan.book_flight", purpose: "book the flight to Lisbon" };
  const expense = { tool: "ramp.submit_expense", purpose: "file the expense of the flight" };
  await using flight = await agent.lease(NAVAN, booking);
  await using filing = await agent.lease(RAMP, expense);
  const guard = new Guard(agent, {
    book_flight: { name: booking.tool, fields: Object.keys(NAVAN), redeemWith: navan },
    submit_expense: { name: expense.tool, fields: Object.keys(RAMP), redeemWith: ramp },
  });
  const tools = guard.wrap({ book_flight: bookFlight(services), submit_expense: submitExpense(services) });
  return await play({ ...handlesOf(flight), ...handlesOf(filing) }, tools);
}

function handlesOf(lease: Lease): Record<string, string> {
  return Object.fromEntries(lease.names.map((name) => [name, lease.get(name).handle]));
}
