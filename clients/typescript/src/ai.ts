/**
 * Secrets for tools of the Vercel AI SDK: the model writes a handle or a reference, the tool gets the value, and what the
 * tool gives back is concealed before anybody else sees it.
 *
 *     import { withSecrets } from "valetkey/ai";
 *
 *     const tools = { bookFlight: withSecrets(tool({ inputSchema, execute }), { broker, with: asTool, tool: "navan.book_flight", … }) };
 *
 * The value is put in after the model spoke, inside of `execute`: no message, step or span ever holds it. This module
 * imports nothing of the SDK, and so works with every version whose tools have an `execute`.
 */

import type { Broker, LeaseOptions } from "./broker.js";
import { Concealer } from "./conceal.js";
import { DeniedError, InvalidRequestError } from "./errors.js";
import type { Lease } from "./lease.js";
import type { LeasedSecret } from "./leased.js";
import type { Secret } from "./secret.js";

/** On whose behalf, and for what, a tool's secrets are asked for. */
export interface SecretsOptions extends Omit<LeaseOptions, "partial" | "signal"> {
  /** The broker as the agent sees it: it asks for what the model names by reference. */
  readonly broker: Broker;
  /** The broker as the tool sees it: it redeems. Default: the agent itself, where policy says `@redeem_by("agent")`. */
  readonly with?: Broker;
  /** The lease whose handles the model was given. What it was given is then good even where it was renewed since. */
  readonly lease?: Lease;
  /** The references that the model may name. Default: all that policy allows. */
  readonly references?: readonly string[];
  /** The properties of the input that take secrets; a handle in any other stays one. Default: all. */
  readonly fields?: readonly string[];
}

/** What a tool of the SDK has, as far as this module looks. */
interface Executable {
  // biome-ignore lint/suspicious/noExplicitAny: whatever the tool takes; `T` keeps its own type.
  readonly execute?: ((input: any, options: any) => unknown) | undefined;
}

/** The tool, with values in place of the handles and references that a model writes into its input. */
export function withSecrets<T extends Executable>(tool: T, options: SecretsOptions): T {
  const { execute } = tool;
  if (execute === undefined) {
    throw new TypeError("the tool has no `execute`: it runs elsewhere, where nothing can be put in");
  }
  const run = execute.bind(tool);
  const isStream = Object.prototype.toString.call(execute) === "[object AsyncGeneratorFunction]";
  const wrapped = isStream
    ? async function* (input: unknown, call: Call = {}) {
        const concealer = new Concealer();
        try {
          const output = run(await filled(input, call, options, concealer), call) as AsyncIterable<unknown>;
          for await (const part of output) yield concealer.data(part);
        } catch (error) {
          throw concealer.error(error);
        }
      }
    : async (input: unknown, call: Call = {}) => {
        const concealer = new Concealer();
        try {
          const output = await run(await filled(input, call, options, concealer), call);
          return concealer.data(isIterable(output) ? await last(output) : output);
        } catch (error) {
          throw concealer.error(error);
        }
      };
  return { ...tool, execute: wrapped };
}

/** What the SDK tells a tool of its call, as far as this module looks. */
interface Call {
  readonly abortSignal?: AbortSignal;
}

/**
 * The input with values in it. What it throws is for the model: that a reference is denied and what to do instead, or that
 * a person must approve it first, and where.
 */
async function filled(input: unknown, call: Call, options: SecretsOptions, concealer: Concealer): Promise<unknown> {
  const { broker, with: asTool, lease, references: allowed, fields, ...ask } = options;
  const found = new Set<string>();
  const note = (name: string) => {
    found.add(name);
    return name;
  };
  replacedIn(fields, input, note);
  if (found.size > PLACES_MAX) throw new InvalidRequestError(`the tool's input names more than ${PLACES_MAX} secrets`);
  const names = [...found];
  const signal = call.abortSignal === undefined ? {} : { signal: call.abortSignal };
  const handles = names.filter((name) => !name.startsWith("op://"));
  const references = names.filter((name) => name.startsWith("op://"));
  const values = new Map<string, string>();
  const keep = (name: string, secret: Secret) => {
    values.set(name, secret.expose());
    concealer.add(secret.expose());
    secret.wipe();
  };
  const foreign = references.find((reference) => allowed !== undefined && !allowed.includes(reference));
  if (foreign !== undefined) {
    const takes = allowed?.join(", ") || "no reference";
    throw new DeniedError(`access denied for \`${foreign}\`; this tool takes ${takes}`, { reference: foreign });
  }
  // Before any handle is spent: what is refused now, or waits for a person, may be asked for again with the same input.
  const wanted = Object.fromEntries(references.map((reference) => [reference, reference]));
  await using own = references.length > 0 ? await broker.lease(wanted, { ...ask, ...signal }) : undefined;
  const { destination } = ask;
  const how = { ...signal, ...(destination !== undefined && { destination }) };
  const redeem = (leased: LeasedSecret) => leased.redeem({ ...how, ...(asTool !== undefined && { with: asTool }) });
  for (const handle of handles) {
    const leased = lease?.find(handle);
    keep(handle, await (leased ? redeem(leased) : (asTool ?? broker).redeem(handle, how)));
  }
  if (own !== undefined) for (const reference of references) keep(reference, await redeem(own.get(reference)));
  return replacedIn(fields, input, (name) => values.get(name) ?? name);
}

/** The same as `replaced`, for these properties alone where there are any. */
function replacedIn(fields: readonly string[] | undefined, input: unknown, by: (name: string) => string): unknown {
  if (fields === undefined || typeof input !== "object" || input === null) return replaced(input, by);
  const some = Object.entries(input).map(([key, inner]) => [key, fields.includes(key) ? replaced(inner, by) : inner]);
  return Object.fromEntries(some);
}

/** A copy of the input with something else for each handle, and for each text that is a reference. */
function replaced(input: unknown, by: (name: string) => string, depth = 0): unknown {
  if (typeof input === "string") {
    return REFERENCE.test(input) ? by(input) : input.replace(HANDLE, (handle) => by(handle));
  }
  if (typeof input !== "object" || input === null) return input;
  if (depth > DEPTH_MAX) throw new InvalidRequestError("the tool's input is nested too deeply");
  if (Array.isArray(input)) return input.map((inner) => replaced(inner, by, depth + 1));
  return Object.fromEntries(Object.entries(input).map(([key, inner]) => [key, replaced(inner, by, depth + 1)]));
}

function isIterable(it: unknown): it is AsyncIterable<unknown> {
  return typeof it === "object" && it !== null && Symbol.asyncIterator in it;
}

/** A stream that nobody could have known to be one: its last part is its answer. */
async function last(parts: AsyncIterable<unknown>): Promise<unknown> {
  let final: unknown;
  for await (const part of parts) final = part;
  return final;
}

const HANDLE = /vkh_[0-9a-v]{16}_[0-9a-v]{40}/g;
const REFERENCE = /^op:\/\/[^\s/][^/]*\/.+$/;
const PLACES_MAX = 64;
const DEPTH_MAX = 32;
