/**
 * Secrets for tools of the Vercel AI SDK: the model writes a handle or a reference, the tool gets the value, and what the
 * tool gives back is concealed before anybody else sees it.
 *
 *     import { Guard } from "valetkey/ai";
 *
 *     const guard = new Guard(agent, {
 *       book_flight: { name: "navan.book_flight", fields: ["username", "password"], redeemWith: navan },
 *     });
 *     await generateText({ model, prompt, tools: guard.wrap({ book_flight: bookFlight, search }) });
 *
 * A tool gets a value only if it is named, only in the fields named for it, and by the identity named for it. The value is
 * put in after the model spoke, inside of `execute`: no message, step or span ever holds it. This module imports nothing of
 * the SDK, and so works with every version whose tools have an `execute`.
 */

import type { Broker, LeaseOptions } from "./broker.js";
import { Concealer } from "./conceal.js";
import { DeniedError, InvalidRequestError } from "./errors.js";
import type { Lease } from "./lease.js";
import { Released } from "./released.js";
import type { Secret } from "./secret.js";

/** A tool that may be given values. */
export interface GuardedTool {
  /** What policies call it. */
  readonly name: string;
  /** The properties of its input in which a handle or a reference, if it is the whole text, gives way to the value. */
  readonly fields: readonly string[];
  /** Who redeems: the broker as this tool sees it, or the guard's own where policy says `@redeem_by("agent")`. */
  readonly redeemWith: Broker;
  /** The references that the model may name. Default: all that policy allows. */
  readonly references?: readonly string[];
  /** The reason, for reviewers. Default: the guard's. */
  readonly purpose?: string;
  /** The host that the values are sent to; policies may look at it. */
  readonly destination?: string;
}

/** With what a guard asks for the references that a model writes. */
export interface GuardOptions extends Pick<LeaseOptions, "ttl" | "session" | "onBehalfOf"> {
  /** The reason, for reviewers. Default: `called by a model`. */
  readonly purpose?: string;
}

/** What a tool of the SDK has, as far as this module looks. */
interface Executable {
  // biome-ignore lint/suspicious/noExplicitAny: whatever the tool takes; `T` keeps its own type.
  readonly execute?: ((input: any, options: any) => unknown) | undefined;
}

/** What the SDK tells a tool of its call, as far as this module looks. */
interface Call {
  readonly abortSignal?: AbortSignal;
}

/**
 * Puts values into the inputs of tools, and takes them out of what they give back.
 *
 * It remembers the values that it put in, the last 256 for an hour, and conceals them in what every tool that it wraps
 * returns, streams or throws, whether or not that one is given values. A call in which the model itself wrote one of them
 * is refused: what is concealed would tell it which of its guesses was right.
 */
export class Guard {
  readonly #agent: Broker;
  readonly #tools: ReadonlyMap<string, GuardedTool>;
  readonly #options: GuardOptions;
  readonly #released = new Released();

  /**
   * `agent` is the broker as the agent sees it: it asks for what the model names by reference. `tools` has the tools that may
   * be given values, by the names that the model calls them by.
   */
  constructor(agent: Broker, tools: Readonly<Record<string, GuardedTool>>, options: GuardOptions = {}) {
    this.#agent = agent;
    this.#tools = new Map(Object.entries(tools));
    this.#options = options;
  }

  /** The same tools, guarded. Name them as the model does. */
  wrap<T extends Readonly<Record<string, Executable>>>(tools: T): T {
    const wrapped = Object.entries(tools).map(([name, tool]) => [name, this.#wrapped(name, tool)]);
    return Object.fromEntries(wrapped);
  }

  #wrapped(name: string, tool: Executable): Executable {
    const guarded = this.#tools.get(name);
    const { execute } = tool;
    if (execute === undefined) {
      if (guarded === undefined) return tool;
      throw new TypeError(`\`${name}\` has no \`execute\`: it runs elsewhere, where nothing can be put in`);
    }
    const run = execute.bind(tool);
    const begin = async (input: unknown, call: Call, own: Concealer) =>
      run(await this.#filled(guarded, input, call, own), call);
    const all = (own: Concealer) => new Concealer(own, this.#released.known);
    const isStream = Object.prototype.toString.call(execute) === "[object AsyncGeneratorFunction]";
    const wrapped = isStream
      ? async function* (input: unknown, call: Call = {}) {
          const own = new Concealer();
          try {
            for await (const part of (await begin(input, call, own)) as AsyncIterable<unknown>)
              yield all(own).data(part);
          } catch (error) {
            throw all(own).error(error);
          }
        }
      : async (input: unknown, call: Call = {}) => {
          const own = new Concealer();
          try {
            const output = await begin(input, call, own);
            return all(own).data(isIterable(output) ? await last(output) : output);
          } catch (error) {
            throw all(own).error(error);
          }
        };
    return { ...tool, execute: wrapped };
  }

  /**
   * The input with values in it. What it throws is for the model: that a reference is denied and what to do instead, or
   * that a person must approve it first, and where.
   */
  async #filled(guarded: GuardedTool | undefined, input: unknown, call: Call, own: Concealer): Promise<unknown> {
    const fields = guarded?.fields ?? [];
    const names = namesIn(fields, input);
    const written = replacedIn(fields, input, () => "");
    refuseKnown(this.#released.known, written);
    if (guarded === undefined) return input;
    const { destination, redeemWith } = guarded;
    const { abortSignal: signal } = call;
    const how = { ...(signal && { signal }), ...(destination !== undefined && { destination }) };
    const values = new Map<string, string>();
    const keep = (name: string, secret: Secret) => {
      const value = secret.expose();
      secret.wipe();
      values.set(name, value);
      own.add(value);
      this.#released.add(value);
    };
    // Before any handle is spent: what is refused now, or waits for a person, may be asked for again with the same input.
    const secrets = names.filter(isHandle).map((handle) => this.#behind(guarded, handle));
    await using lease = await this.#leased(guarded, names.filter(isReference), how);
    for (const { name, redeem } of [...secrets, ...this.#ofLease(lease, redeemWith)]) keep(name, await redeem(how));
    refuseKnown(own, written);
    return replacedIn(fields, input, (name) => values.get(name) ?? name);
  }

  /** What is behind a handle, if it is one of the tool's. */
  #behind({ name, redeemWith }: GuardedTool, handle: string): Redeemable {
    const leased = this.#agent.find(handle);
    if (leased !== undefined && leased.tool !== name) {
      throw new DeniedError(`access denied: this handle is for \`${leased.tool}\`, not for \`${name}\``);
    }
    if (leased !== undefined) {
      return { name: handle, redeem: (how) => leased.redeem({ ...how, ...by(redeemWith, this.#agent) }) };
    }
    // The broker gives a tool what is its own. An agent holds handles for others too, so it redeems those that it knows.
    if (redeemWith !== this.#agent) return { name: handle, redeem: (how) => redeemWith.redeem(handle, how) };
    throw new DeniedError(`access denied: this handle is of no open lease for \`${name}\`; use a fresh one`);
  }

  /** A lease on the references that the model wrote. */
  async #leased(guarded: GuardedTool, references: string[], how: How): Promise<Lease | undefined> {
    if (references.length === 0) return undefined;
    const { name: tool, references: allowed, purpose = this.#options.purpose ?? PURPOSE_USUAL } = guarded;
    const foreign = references.find((reference) => allowed !== undefined && !allowed.includes(reference));
    if (foreign !== undefined) {
      const takes = allowed?.join(", ") || "no reference";
      throw new DeniedError(`access denied for \`${foreign}\`; this tool takes ${takes}`, { reference: foreign });
    }
    const wanted = Object.fromEntries(references.map((reference) => [reference, reference]));
    return await this.#agent.lease(wanted, { ...this.#options, ...how, tool, purpose });
  }

  #ofLease(lease: Lease | undefined, redeemWith: Broker): Redeemable[] {
    if (lease === undefined) return [];
    return lease.names.map((name) => ({
      name,
      redeem: (how) => lease.get(name).redeem({ ...how, ...by(redeemWith, this.#agent) }),
    }));
  }
}

interface How {
  readonly signal?: AbortSignal;
  readonly destination?: string;
}

/** What stands in the input for a value, and the way to it. */
interface Redeemable {
  readonly name: string;
  readonly redeem: (how: How) => Promise<Secret>;
}

/** An agent that redeems for a tool does so as the holder of the lease. */
function by(redeemWith: Broker, agent: Broker): { readonly with?: Broker } {
  return redeemWith === agent ? {} : { with: redeemWith };
}

/** A model that writes a value would learn from what is concealed that it is one. */
function refuseKnown(concealer: Concealer, written: unknown): void {
  if (typeof written !== "object" || written === null) return;
  if (!concealer.shows(Object.values(written))) return;
  throw new InvalidRequestError(
    "the input has a value in it that is kept from you; write its handle or its reference, and nothing of the value",
  );
}

/** The handles and references in these properties, each once. */
function namesIn(fields: readonly string[], input: unknown): string[] {
  const names = new Set<string>();
  replacedIn(fields, input, (name) => {
    names.add(name);
    return name;
  });
  if (names.size > PLACES_MAX) throw new InvalidRequestError(`the tool's input names more than ${PLACES_MAX} secrets`);
  return [...names];
}

/** A copy of the input with something else in these properties, for each text that is a handle or a reference. */
function replacedIn(fields: readonly string[], input: unknown, by: (name: string) => string): unknown {
  if (typeof input !== "object" || input === null) return input;
  const some = Object.entries(input).map(([key, inner]) => [key, fields.includes(key) ? replaced(inner, by) : inner]);
  return Object.fromEntries(some);
}

function replaced(input: unknown, by: (name: string) => string, depth = 0): unknown {
  if (typeof input === "string") {
    const name = input.trim();
    if (isHandle(name) || isReference(name)) return by(name);
    if (!HANDLE.test(input)) return input;
    throw new InvalidRequestError("the input has a handle among other text; write the handle alone");
  }
  if (typeof input !== "object" || input === null) return input;
  if (depth > DEPTH_MAX) throw new InvalidRequestError("the tool's input is nested too deeply");
  if (Array.isArray(input)) return input.map((inner) => replaced(inner, by, depth + 1));
  return Object.fromEntries(Object.entries(input).map(([key, inner]) => [key, replaced(inner, by, depth + 1)]));
}

function isHandle(text: string): boolean {
  return HANDLE.exec(text)?.[0] === text;
}

function isReference(text: string): boolean {
  return REFERENCE.test(text);
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

const HANDLE = /vkh_[0-9a-v]{16}_[0-9a-v]{40}/;
const REFERENCE = /^op:\/\/[^\s/][^/]*\/.+$/;
const PURPOSE_USUAL = "called by a model";
const PLACES_MAX = 64;
const DEPTH_MAX = 32;
