/** A connection to a broker, as one identity: the calls of an agent and of a tool. */

import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { type Client, createClient } from "@connectrpc/connect";
import { parseAddress } from "./address.js";
import { Deadline, isTransient, now, persist, within } from "./bounds.js";
import { type Credentials, checkCredentials, credentialsFrom, parseToken } from "./credentials.js";
import { ConfigurationError, InvalidRequestError, UnavailableError, type ValetkeyError } from "./errors.js";
import { Decision, Redeemer } from "./gen/valetkey/v1/lease_pb.js";
import { LeaseService } from "./gen/valetkey/v1/lease_service_pb.js";
import { Lease } from "./lease.js";
import type { LeasedSecret } from "./leased.js";
import { Http2Link, type Link, ON_BEHALF_OF } from "./link.js";
import { Secret } from "./secret.js";

/** How long to wait. */
export interface Patience {
  /** The most that any call takes, in seconds, with all its attempts. Default 30. */
  readonly deadline?: number;
  /** How long an open lease tries to come back after its broker went away, in seconds. Default 60. */
  readonly resume?: number;
}

/** Where a broker is, and who calls. */
export interface BrokerOptions extends Credentials, Patience {
  /** `https://host:port`, `http://` over loopback, or `unix:/path`. Default `http://127.0.0.1:7447`. */
  readonly address?: string;
}

/** What an agent asks with. */
export interface LeaseOptions {
  /** The program that will use the secrets, and alone can redeem the handles. */
  readonly tool: string;
  /** The reason, for reviewers; never part of a decision. */
  readonly purpose: string;
  /** How long each handle lives before it is renewed, in seconds. Default: the broker's, usually 60. */
  readonly ttl?: number;
  /** Whether some references will do where others are refused. Default: all or nothing. */
  readonly partial?: boolean;
  /** The agent's own name for its run; policies may look at it. */
  readonly session?: string;
  /** The host that the secrets will be sent to; policies may look at it. */
  readonly destination?: string;
  /** The signed token of the person that the agent acts for. */
  readonly onBehalfOf?: string;
  /** Gives up opening the lease, and releases it once it is open. */
  readonly signal?: AbortSignal;
}

/** What an agent wonders about. */
export type CheckOptions = Pick<LeaseOptions, "tool" | "ttl" | "session" | "destination" | "onBehalfOf" | "signal">;

/** What the broker would decide. */
export interface Access {
  /** Whether a lease would be granted. */
  readonly allowed: boolean;
  /** Whether a person would have to approve it first, and none has yet. */
  readonly approvalRequired: boolean;
  /** What the caller can do about a refusal; empty where policy gives no advice. */
  readonly advice: string;
  /** The audit record of the check. */
  readonly recordId: string;
  /** The longest life that policy allows, in seconds, where it sets one. */
  readonly ttlMax: number | undefined;
  /** How often the handle could be redeemed; 0 for a refusal. */
  readonly uses: number;
  /** Who could redeem it. */
  readonly redeemer: "tool" | "agent" | "unknown";
  /** Whether it would be good over mutual TLS only, and for one key. */
  readonly certificateBound: boolean;
}

/** A broker, as one identity. It connects when it is first called, and again when the connection broke. */
export class Broker implements AsyncDisposable {
  readonly #link: Link;
  readonly #client: Client<typeof LeaseService>;
  readonly #deadline: number;
  readonly #resume: number;
  readonly #leases = new Set<Lease>();
  #isClosed = false;

  /** A broker at this address. Throws `ConfigurationError` where address, token or files cannot be used. */
  constructor(options: BrokerOptions = {}) {
    this.#deadline = seconds("deadline", options.deadline ?? DEADLINE_USUAL);
    this.#resume = seconds("resume", options.resume ?? RESUME_USUAL);
    this.#link = linkOf(options);
    this.#client = createClient(LeaseService, this.#link.transport);
  }

  /**
   * The broker that the environment names, as the `valetkey` program finds it: `VALETKEY_ADDRESS`, `VALETKEY_TOKEN` or the
   * file `VALETKEY_TOKEN_FILE`, `VALETKEY_CA`, `VALETKEY_CERT` and `VALETKEY_KEY`.
   */
  static fromEnv({ env = process.env, ...patience }: Patience & { readonly env?: NodeJS.ProcessEnv } = {}): Broker {
    const address = env.VALETKEY_ADDRESS;
    return new Broker({ ...credentialsFrom(env), ...(address !== undefined && { address }), ...patience });
  }

  /**
   * Acquires a lease on these references, as an agent; returns when every handle is there. Throws `DeniedError`,
   * `ApprovalRequiredError`, `NotFoundError`, `InvalidRequestError` and whatever else stands in the way of the request as a
   * whole. It stays open, and keeps the process running as an open connection does, until it is released or over.
   */
  async lease<Name extends string>(
    references: Readonly<Record<Name, string>>,
    options: LeaseOptions,
  ): Promise<Lease<Name>> {
    const { tool, purpose, ttl, partial = false, session = "", destination = "", onBehalfOf } = options;
    const headers = behalf(onBehalfOf);
    const request = { tool, purpose, partial, session, destination, ...life(ttl) };
    if (Object.keys(references).length === 0) {
      throw new InvalidRequestError("the request is invalid: references must name at least one secret");
    }
    const lease = new Lease<Name>(
      {
        broker: this,
        options,
        deadline: this.#deadline,
        resume: this.#resume,
        isRenewable: this.#link.isRenewable,
        mayRetry: this.#mayRetry(),
        open: async (references, signal, onTime) => {
          await this.#ready();
          const onHeader = (answered: Headers) => {
            const time = Date.parse(answered.get("date") ?? "");
            if (!Number.isNaN(time)) onTime(time);
          };
          const how = { signal, headers, onHeader };
          return this.#client.acquireLease({ ...request, references }, how)[Symbol.asyncIterator]();
        },
        probe: () => this.#link.probe(),
        end: (leaseId, signal) => this.endLease(leaseId, { signal }),
      },
      references,
    );
    await lease.start();
    this.#leases.add(lease);
    void lease.ended.then(() => this.#leases.delete(lease));
    if (this.#isClosed) await lease.release();
    return lease;
  }

  /** The secret of an open lease of this broker's that the handle is or was for; `undefined` where it is none of them. */
  find(handle: string): LeasedSecret | undefined {
    for (const lease of this.#leases) {
      const leased = lease.find(handle);
      if (leased !== undefined) return leased;
    }
    return undefined;
  }

  /**
   * The value behind a handle, as the tool that it was issued for. Throws `HandleNotActiveError` for every handle that
   * gives nothing; after a `TimedOutError`, and an `UnavailableError` that does not say `nothingDone`, a use may be spent.
   */
  async redeem(
    handle: string,
    { destination = "", signal }: { readonly destination?: string; readonly signal?: AbortSignal } = {},
  ): Promise<Secret> {
    // An answer that got lost may have spent a use: only what the broker has not begun is tried again.
    const mayRetry = (error: ValetkeyError) => !(error instanceof UnavailableError) || error.nothingDone;
    const answer = await this.#call(signal, mayRetry, (signal) =>
      this.#client.redeemHandle({ handle, destination }, { signal }),
    );
    const { secretValue } = answer;
    const secret = new Secret(Uint8Array.from(secretValue));
    secretValue.fill(0);
    return secret;
  }

  /** Whether a lease on this reference would be granted, as an agent. Nothing is fetched; the question is recorded. */
  async check(reference: string, options: CheckOptions): Promise<Access> {
    const { tool, ttl, session = "", destination = "", onBehalfOf, signal } = options;
    const headers = behalf(onBehalfOf);
    const request = { tool, reference, session, destination, ...life(ttl) };
    const answer = await this.#call(
      signal,
      () => true,
      (signal) => this.#client.checkAccess(request, { signal, headers }),
    );
    const { decision, advice, recordId, ttlMax, uses, redeemer, certificateBound } = answer;
    return {
      allowed: decision === Decision.ALLOW,
      approvalRequired: answer.approvalRequired,
      advice,
      recordId,
      ttlMax: ttlMax && durationMs(ttlMax) / 1000,
      uses,
      redeemer: redeemer === Redeemer.TOOL ? "tool" : redeemer === Redeemer.AGENT ? "agent" : "unknown",
      certificateBound,
    };
  }

  /** Ends a lease by its id: its handles are dead when this returns. */
  async endLease(leaseId: string, { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    await this.#call(
      signal,
      () => true,
      (signal) => this.#client.endLease({ leaseId }, { signal }),
    );
  }

  /** Releases its leases and closes the connection. Calls fail from now on. */
  async close(): Promise<void> {
    while (this.#leases.size > 0) {
      await Promise.all([...this.#leases].map((lease) => lease.release()));
    }
    this.#isClosed = true;
    this.#link.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  toJSON(): string {
    return "Broker";
  }

  async #ready(): Promise<void> {
    if (this.#isClosed) throw new ConfigurationError("this broker was closed; make another one");
    await this.#link.ready();
  }

  async #call<T>(
    signal: AbortSignal | undefined,
    mayRetry: (error: ValetkeyError) => boolean,
    call: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const deadline = new Deadline(this.#deadline);
    const mayRetryHere = this.#mayRetry();
    return await persist({ deadline, signal, mayRetry: (error) => mayRetryHere(error) && mayRetry(error) }, () =>
      within(deadline, signal, async (inner) => {
        await this.#ready();
        return await call(inner);
      }),
    );
  }

  /** Nobody waits for a broker that was never there as long as for one that went away. */
  #mayRetry(): (error: ValetkeyError) => boolean {
    const since = now();
    return (error) => isTransient(error) && (this.#link.wasReached || now() - since < CONTACT_MAX);
  }
}

/** The link of these options, or one that a test brings. */
function linkOf(options: BrokerOptions & { readonly [LINK]?: Link }): Link {
  const given = options[LINK];
  if (given !== undefined) return given;
  const address = parseAddress(options.address ?? ADDRESS_USUAL);
  checkCredentials(options, address);
  return new Http2Link(address, options);
}

function behalf(person: string | undefined): Record<string, string> {
  return person === undefined ? {} : { [ON_BEHALF_OF]: parseToken(person) };
}

function life(ttl: number | undefined) {
  if (ttl === undefined) return {};
  if (!Number.isFinite(ttl) || ttl <= 0 || ttl > TTL_MAX) {
    throw new InvalidRequestError(`the request is invalid: ttl must be a number of seconds above 0, not ${ttl}`);
  }
  return { ttl: durationFromMs(Math.round(ttl * 1000)) };
}

function seconds(name: string, value: number): number {
  if (Number.isFinite(value) && value > 0) return value;
  throw new ConfigurationError(`\`${name}\` must be a number of seconds above 0, not ${value}`);
}

/** @internal Where `valetkey/testing` puts its own link. */
export const LINK: unique symbol = Symbol("valetkey.link");
const ADDRESS_USUAL = "http://127.0.0.1:7447";
/** Longer than the broker takes to give up on its log or source. */
const DEADLINE_USUAL = 30;
const RESUME_USUAL = 60;
const CONTACT_MAX = 2000;
/** A day: far more than a broker allows, and nothing overflows. */
const TTL_MAX = 86_400;
