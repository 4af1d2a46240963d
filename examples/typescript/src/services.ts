/** Small stand-ins for Navan and Ramp, on loopback: they take a booking and an expense from whoever shows the right login. */

import { once } from "node:events";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { NAVAN, RAMP } from "./trip.js";
import { behind } from "./vault.js";

/** Both services, and what they were asked to do. */
export class Services implements AsyncDisposable {
  navan = "";
  ramp = "";
  readonly done: string[] = [];
  readonly #servers: Server[] = [];

  static async start(): Promise<Services> {
    const services = new Services();
    services.navan = await services.#serve(NAVAN.navan_username, NAVAN.navan_password, (order) => {
      const isPaid =
        order.card_number === behind(NAVAN.card_number) &&
        order.card_expiry === behind(NAVAN.card_expiry) &&
        order.card_code === behind(NAVAN.card_code);
      if (!isPaid) return undefined;
      services.done.push(`flight ${order.from}-${order.to} booked and paid`);
      // Services repeat what they were told: that must not reach the model either.
      return { confirmation: "NV-4711", price: "184.20 EUR", traveller: behind(NAVAN.navan_username) };
    });
    services.ramp = await services.#serve(RAMP.ramp_username, RAMP.ramp_password, (expense) => {
      services.done.push(`expense of ${expense.amount} for ${expense.confirmation} filed`);
      return { expense: "RP-0815", state: "submitted" };
    });
    return services;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) server.close();
  }

  async #serve(
    username: string,
    password: string,
    answer: (order: Record<string, string>) => object | undefined,
  ): Promise<string> {
    const login = `${behind(username)}:${behind(password)}`;
    const server = createServer(async (request, response) => {
      const shown = Buffer.from(request.headers.authorization?.replace("Basic ", "") ?? "", "base64").toString();
      const order = shown === login ? answer(await bodyOf(request)) : undefined;
      response.writeHead(order === undefined ? 403 : 200, { "content-type": "application/json" });
      response.end(JSON.stringify(order ?? { error: "refused" }));
    });
    this.#servers.push(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
}

async function bodyOf(request: IncomingMessage): Promise<Record<string, string>> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString());
}
