/** One reference of a lease, and the handle that is good for it now. */

import { now } from "./bounds.js";
import type { LeaseOptions } from "./broker.js";
import {
  DeniedError,
  type Facts,
  HandleNotActiveError,
  LimitReachedError,
  NotFoundError,
  PreconditionError,
  UnavailableError,
  type ValetkeyError,
} from "./errors.js";
import { type HandleIssued, Redeemer, type ReferenceRefused } from "./gen/valetkey/v1/lease_pb.js";
import { approvalRequired, handleNotActive, printable } from "./status.js";

/** A handle and its terms. */
export interface Issued {
  readonly handle: string;
  /** The part of the handle that may be logged: `vkh_<id>`. */
  readonly handleId: string;
  readonly recordId: string;
  /** How often it can be redeemed. */
  readonly uses: number;
  readonly redeemer: "tool" | "agent" | "unknown";
  /** Whether it is good over mutual TLS only, and for one key. */
  readonly certificateBound: boolean;
}

/** What a lease knows of one reference. */
export class Slot {
  readonly reference: string;
  /** Why there is no handle and will be none, where that is so. */
  failure: ValetkeyError | undefined;
  #issued: Issued | undefined;
  #receivedAt = 0;
  /** The broker's clock, for differences only: it may be hours from ours. */
  #expires = 0;
  #redeemed = 0;
  /** The ids of its handles, past ones too: what a model was given may have been renewed since. */
  readonly #ids: string[] = [];

  constructor(reference: string) {
    this.reference = reference;
  }

  /** Whether the broker has answered for it. */
  get isSettled(): boolean {
    return this.#issued !== undefined || this.failure !== undefined;
  }

  /** Whether all uses of its handle are spent, as far as this lease was used for them. */
  get isSpent(): boolean {
    return this.#issued !== undefined && this.#redeemed >= this.#issued.uses;
  }

  /** The handle of now, if it is not past its life as this clock counts it. */
  live(life: number | undefined): Issued | undefined {
    if (life !== undefined && now() >= this.#receivedAt + life) return undefined;
    return this.#issued;
  }

  /** Takes a handle. What it tells of the life of handles, in milliseconds: nothing, for a first one. */
  take(issued: HandleIssued): number | undefined {
    const expires = Number(issued.expireTime?.seconds ?? 0n) * 1000 + (issued.expireTime?.nanos ?? 0) / 1e6;
    // A handle is renewed when a fifth of its life is left.
    const isRenewed = this.#issued !== undefined && expires > this.#expires;
    const life = isRenewed ? (expires - this.#expires) / 0.8 : undefined;
    this.#expires = expires;
    this.#receivedAt = now();
    this.#redeemed = 0;
    this.failure = undefined;
    this.#issued = {
      handle: issued.handle,
      handleId: issued.handleId,
      recordId: issued.recordId,
      uses: issued.uses,
      redeemer: REDEEMERS.get(issued.redeemer) ?? "unknown",
      certificateBound: issued.certificateBound,
    };
    this.#ids.push(issued.handleId);
    if (this.#ids.length > IDS_MAX) this.#ids.shift();
    return life;
  }

  /** Takes a refusal. */
  refuse({ reason, message, recordId }: ReferenceRefused): void {
    const facts = { reason: printable(reason), recordId: printable(recordId), reference: this.reference };
    if (facts.reason === "APPROVAL_REQUIRED") {
      this.failure = approvalRequired(printable(message), facts);
      return;
    }
    this.failure = new (kindOf(facts.reason))(`${printable(message)} (audit record ${facts.recordId})`, facts);
  }

  /** Counts a use. */
  spend(issued: Issued): void {
    if (issued === this.#issued) this.#redeemed += 1;
  }

  /** The handle is dead. */
  clear(): void {
    this.#issued = undefined;
  }

  /** Whether a handle with this id was ever its own. */
  knows(handleId: string): boolean {
    return this.#ids.includes(handleId);
  }
}

/** The error that a whole request would have got for this reason. */
function kindOf(reason: string): new (message: string, facts: Facts) => ValetkeyError {
  if (reason === "ACCESS_DENIED") return DeniedError;
  if (reason.endsWith("_NOT_FOUND")) return NotFoundError;
  if (reason === "RESOLVER_RATE_LIMITED" || reason.endsWith("_LIMIT")) return LimitReachedError;
  return UNAVAILABLE.has(reason) ? UnavailableError : PreconditionError;
}

/** The error for a handle that this lease knows to be dead. */
export function deadHandle(slot: Slot): HandleNotActiveError {
  if (!slot.isSpent) return handleNotActive();
  const message = `the handle for \`${slot.reference}\` was redeemed already; take another lease`;
  return new HandleNotActiveError(message, { reason: "HANDLE_NOT_ACTIVE", reference: slot.reference });
}

/** The life that was asked for, in milliseconds. */
export function lifeOf({ ttl }: LeaseOptions): number | undefined {
  return ttl === undefined ? undefined : ttl * 1000;
}

const REDEEMERS = new Map<Redeemer, "tool" | "agent">([
  [Redeemer.TOOL, "tool"],
  [Redeemer.AGENT, "agent"],
]);
const UNAVAILABLE = new Set([
  "AUDIT_UNAVAILABLE",
  "POLICY_IN_FLUX",
  "REFERENCE_CHANGED",
  "RESOLVER_CREDENTIALS_REFUSED",
  "RESOLVER_UNAVAILABLE",
  "SHUTTING_DOWN",
]);
const IDS_MAX = 64;
