/** The tutorial's way: seven values are read with a service account's token, and handed to the model. */

import { play } from "./model.js";
import type { Services } from "./services.js";
import { bookFlight, submitExpense } from "./tools.js";
import { NAVAN, RAMP } from "./trip.js";
import { createClient } from "./vault.js";

export async function tutorial(services: Services): Promise<string> {
  const client = await createClient({
    auth: process.env.OP_SERVICE_ACCOUNT_TOKEN ?? "",
    integrationName: "Travel agent",
    integrationVersion: "v1.0.0",
  });
  const credentials: Record<string, string> = {};
  for (const [name, reference] of Object.entries({ ...NAVAN, ...RAMP })) {
    credentials[name] = await client.secrets.resolve(reference);
  }
  return await play(credentials, { book_flight: bookFlight(services), submit_expense: submitExpense(services) });
}
