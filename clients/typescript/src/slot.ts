/** One reference of a lease, and the handle that is good for it now. */

import { createHash, timingSafeEqual } from "node:crypto";
import { type Moment, moment, since } from "./bounds.js";
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

/** When a lease was opened. */
export interface Opened {
  /** By the broker's clock, in milliseconds: for differences only, it may be hours from ours. */
  readonly time: number;
  /** By ours. */
  readonly moment: Moment;
}

/** What a lease knows of one reference. */
export class Slot {
  readonly reference: string;
  /** Why there is no handle and will be none, where that is so. */
  failure: ValetkeyError | undefined;
  #issued: Issued | undefined;
  #received = moment();
  /** How long its handles live, in milliseconds, as far as that is known. */
  #life: number | undefined;
  readonly #lifeAsked: number | undefined;
  /** The broker's clock, for differences only: it may be hours from ours. */
  #expires = 0;
  #redeemed = 0;
  /** The digests of its handles, past ones too: what a model was given may have been renewed since. */
  readonly #digests: Buffer[] = [];

  constructor(reference: string, { ttl }: LeaseOptions) {
    this.reference = reference;
    this.#lifeAsked = ttl === undefined ? undefined : ttl * 1000;
  }

  /** Whether the broker has answered for it. */
  get isSettled(): boolean {
    return this.#issued !== undefined || this.failure !== undefined;
  }

  /** Whether all uses of its handle are spent, as far as this lease was used for them. */
  get isSpent(): boolean {
    return this.#issued !== undefined && this.#redeemed >= this.#issued.uses;
  }

  /** The handle of now, past its life or not. */
  get issued(): Issued | undefined {
    return this.#issued;
  }

  /** The handle of now, if it is not past its life as the clocks here count it. */
  live(): Issued | undefined {
    if (this.#life !== undefined && since(this.#received) >= this.#life) return undefined;
    return this.#issued;
  }

  /** Takes a handle. `opened` is when its lease was opened. */
  take(issued: HandleIssued, opened: Opened | undefined): void {
    const expires = Number(issued.expireTime?.seconds ?? 0n) * 1000 + (issued.expireTime?.nanos ?? 0) / 1e6;
    if (this.#lifeAsked !== undefined) {
      this.#life = this.#lifeAsked;
    } else if (this.#issued !== undefined && expires > this.#expires) {
      // A handle is renewed when a fifth of its life is left.
      this.#life = (expires - this.#expires) / 0.8;
    } else if (this.#issued === undefined) {
      this.#life = opened && expires - opened.time - since(opened.moment);
    }
    this.#expires = expires;
    this.#received = moment();
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
    this.#digests.push(digestOf(issued.handle));
    if (this.#digests.length > DIGESTS_MAX) this.#digests.shift();
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

  /** Whether the handle with this digest was ever its own: all of it, for its id is no secret. */
  knows(digest: Buffer): boolean {
    return this.#digests.some((own) => timingSafeEqual(own, digest));
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

/** What a handle is known by where it need not be shown. */
export function digestOf(handle: string): Buffer {
  return createHash("sha256").update(handle).digest();
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
const DIGESTS_MAX = 64;
