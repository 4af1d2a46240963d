/**
 * Why a call failed, by who has to act, each with the next step. No message holds a handle, a token or a value.
 */

/** What the broker says of an error, beside its message. */
export interface Facts {
  /** The broker's stable code, such as `ACCESS_DENIED`; empty where it gave none. */
  readonly reason?: string;
  /** The audit record, which says more to a reviewer. */
  readonly recordId?: string | undefined;
  /** The reference that it is about, as asked. */
  readonly reference?: string | undefined;
}

/** What all errors of this package are. */
export class ValetkeyError extends Error {
  override readonly name: string = "ValetkeyError";
  /** The broker's stable code, such as `ACCESS_DENIED`; empty where it gave none. */
  readonly reason: string;
  /** The audit record, which says more to a reviewer. */
  readonly recordId: string | undefined;
  /** The reference that it is about, as asked. */
  readonly reference: string | undefined;

  constructor(message: string, facts: Facts = {}) {
    super(message);
    this.reason = facts.reason ?? "";
    this.recordId = facts.recordId;
    this.reference = facts.reference;
  }
}

/** The address, the token or a file cannot be used; nothing was sent. */
export class ConfigurationError extends ValetkeyError {
  override readonly name = "ConfigurationError";
}

/** Policy refuses. */
export class DeniedError extends ValetkeyError {
  override readonly name = "DeniedError";
  /** What the policy's author says to do instead, where they say something. */
  readonly advice: string | undefined;

  constructor(message: string, facts: Facts & { readonly advice?: string | undefined } = {}) {
    super(message, facts);
    this.advice = facts.advice;
  }
}

/**
 * Policy allows it once a person has approved it, and none has yet. It is not asked again by itself, because a person
 * needs minutes: show them `approvalId` or `url`, and ask again, with the same tool and references, when they have approved.
 */
export class ApprovalRequiredError extends ValetkeyError {
  override readonly name = "ApprovalRequiredError";
  /** What they approve, `vkl_…`; no secret. Empty where the broker did not say it. */
  readonly approvalId: string;
  /** Where they approve it, where the broker knows a place. */
  readonly url: string | undefined;

  constructor(
    message: string,
    facts: Facts & { readonly approvalId?: string | undefined; readonly url?: string | undefined } = {},
  ) {
    super(message, facts);
    this.approvalId = facts.approvalId ?? "";
    this.url = facts.url;
  }
}

/** Policy allows, but there is no such vault, item, section or field. */
export class NotFoundError extends ValetkeyError {
  override readonly name = "NotFoundError";
}

/** Policy allows, but the reference cannot be given as asked: it is ambiguous, or of another kind. */
export class PreconditionError extends ValetkeyError {
  override readonly name = "PreconditionError";
}

/** The handle is unknown, spent, expired, revoked or somebody else's; the broker does not say which. */
export class HandleNotActiveError extends ValetkeyError {
  override readonly name = "HandleNotActiveError";
}

/** What was shown is nobody's, or (`PERSON_UNAUTHENTICATED`) the token of the person that the call was for is not good. */
export class UnauthenticatedError extends ValetkeyError {
  override readonly name = "UnauthenticatedError";
}

/** One rule that a request breaks. */
export interface Violation {
  /** The field, such as `references[2]`. */
  readonly field: string;
  /** The rule. */
  readonly description: string;
}

/** The request breaks the rules. */
export class InvalidRequestError extends ValetkeyError {
  override readonly name = "InvalidRequestError";
  /** Each rule broken. */
  readonly violations: readonly Violation[];

  constructor(message: string, facts: Facts & { readonly violations?: readonly Violation[] } = {}) {
    super(message, facts);
    this.violations = facts.violations ?? [];
  }
}

/** A bound or a quota is reached. */
export class LimitReachedError extends ValetkeyError {
  override readonly name = "LimitReachedError";
  /** When to ask again, in seconds, where the broker says it. */
  readonly retryAfter: number | undefined;

  constructor(message: string, facts: Facts & { readonly retryAfter?: number | undefined } = {}) {
    super(message, facts);
    this.retryAfter = facts.retryAfter;
  }
}

/** The broker, its log or its source is away. */
export class UnavailableError extends ValetkeyError {
  override readonly name = "UnavailableError";
  /** When to ask again, in seconds, where the broker says it. */
  readonly retryAfter: number | undefined;
  /** Whether it is sure that the broker did nothing. Otherwise a redeem may have spent a use. */
  readonly nothingDone: boolean;

  constructor(
    message: string,
    facts: Facts & { readonly retryAfter?: number | undefined; readonly nothingDone?: boolean } = {},
  ) {
    super(message, facts);
    this.retryAfter = facts.retryAfter;
    this.nothingDone = facts.nothingDone ?? false;
  }
}

/** No answer within the deadline. Whether the broker did it is not known; a redeem may have spent a use. */
export class TimedOutError extends ValetkeyError {
  override readonly name = "TimedOutError";
}

/** Why a lease is over: the broker's causes in lower case, and what only a client sees. */
export type LeaseEndCause =
  | "released"
  | "caller"
  | "policy"
  | "expiry"
  | "credential"
  | "refused"
  | "unavailable"
  | "unknown";

/** The lease is over, and its handles are dead; or one of them was taken back, for `reference`. */
export class LeaseLostError extends ValetkeyError {
  override readonly name = "LeaseLostError";
  /** Why. */
  readonly end: LeaseEndCause;

  constructor(message: string, end: LeaseEndCause, cause?: ValetkeyError, reference?: string) {
    super(message, { ...cause, reference: reference ?? cause?.reference });
    this.end = end;
    if (cause !== undefined) this.cause = cause;
  }
}

/** What answers is no broker, as when one with TLS is called in clear text. */
export class NoBrokerError extends ValetkeyError {
  override readonly name = "NoBrokerError";
}

/** The broker failed. */
export class InternalError extends ValetkeyError {
  override readonly name = "InternalError";
  /** The call's id in the broker's log. */
  readonly requestId: string | undefined;

  constructor(message: string, facts: Facts & { readonly requestId?: string | undefined } = {}) {
    super(message, facts);
    this.requestId = facts.requestId;
  }
}
