/** The only place where what the connection throws becomes an error of this package. */

import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  ApprovalRequiredError,
  DeniedError,
  type Facts,
  HandleNotActiveError,
  InternalError,
  InvalidRequestError,
  LimitReachedError,
  NoBrokerError,
  NotFoundError,
  PreconditionError,
  UnauthenticatedError,
  UnavailableError,
  ValetkeyError,
  type Violation,
} from "./errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

/** What a failed call says, read once. */
interface Status {
  readonly code: Code;
  readonly message: string;
  /** Whether the broker itself speaks: whatever it says has details, and what a broken connection says has none. */
  readonly isBroker: boolean;
  readonly reason: string;
  readonly recordId: string | undefined;
  readonly reference: string | undefined;
  readonly advice: string | undefined;
  readonly retryAfter: number | undefined;
  readonly violations: readonly Violation[];
  readonly requestId: string | undefined;
  readonly approvalId: string | undefined;
  readonly url: string | undefined;
}

/** The error of this package for whatever a call threw. */
export function errorOf(thrown: unknown): ValetkeyError {
  if (thrown instanceof ValetkeyError) return thrown;
  const error = ConnectError.from(thrown);
  // What is ours, and came through the connection's hands.
  if (error.cause instanceof ValetkeyError) return error.cause;
  const status = statusOf(error);
  if (!status.isBroker) return BROKEN.has(status.code) ? unavailable(status) : noBroker(status);
  switch (status.code) {
    case Code.PermissionDenied:
      return denied(status);
    case Code.NotFound:
      return new NotFoundError(
        status.message + (status.reference ? "; check it against the vault" : "") + record(status.recordId),
        status,
      );
    case Code.FailedPrecondition:
      if (status.reason === "HANDLE_NOT_ACTIVE") return handleNotActive(status.recordId);
      if (status.reason === "APPROVAL_REQUIRED") return approvalRequired(status.message, status);
      return new PreconditionError(status.message + record(status.recordId), status);
    case Code.Unauthenticated:
      return unauthenticated(status);
    case Code.InvalidArgument:
    case Code.OutOfRange:
      return invalid(status);
    case Code.ResourceExhausted:
      return new LimitReachedError(`${status.message}; ${again(status.retryAfter)}`, status);
    case Code.Unavailable:
    case Code.Canceled:
    case Code.DeadlineExceeded:
    case Code.Aborted:
      return unavailable(status);
    default:
      return internal(status);
  }
}

/** Whether a broker said this, rather than a connection to one. */
export function isBrokers(thrown: unknown): boolean {
  return ConnectError.from(thrown).findDetails(ErrorInfoSchema).length > 0;
}

/** A handle that is refused. */
export function handleNotActive(recordId?: string): HandleNotActiveError {
  const message = `the handle is not active; ask the agent for a fresh one${record(recordId)}`;
  return new HandleNotActiveError(message, { reason: "HANDLE_NOT_ACTIVE", recordId });
}

/** What a person must approve. Where no field has its id, as in a partial lease, the message names it. */
export function approvalRequired(
  message: string,
  facts: Facts & { readonly approvalId?: string | undefined; readonly url?: string | undefined },
): ApprovalRequiredError {
  const approvalId = APPROVAL_ID.exec(facts.approvalId ?? message)?.[0];
  const run = approvalId ? `run \`valetkey approval approve ${approvalId}\`` : "look at `valetkey approval list`";
  const ways = facts.url === undefined ? `to ${run}` : `to open ${facts.url}, or to ${run}`;
  return new ApprovalRequiredError(
    `a person must approve this first; ask one ${ways}; when they have, ask again with the same tool and references` +
      record(facts.recordId),
    { ...facts, approvalId },
  );
}

function denied(status: Status): DeniedError {
  const about = status.reference ? ` for \`${status.reference}\`` : "";
  const advice = status.advice ?? "ask a reviewer for the reason";
  return new DeniedError(`access denied${about}; ${advice}${record(status.recordId)}`, status);
}

function unauthenticated(status: Status): UnauthenticatedError {
  const message =
    status.reason === "PERSON_UNAUTHENTICATED"
      ? "the broker does not take this token of the person on whose behalf; get a fresh one from its issuer"
      : "the broker does not know who calls; `valetkey doctor --connect` says what it was sent, and what to check";
  return new UnauthenticatedError(message, status);
}

function invalid(status: Status): InvalidRequestError {
  const broken = status.violations.map(({ field, description }) => `${field} ${description}`).join("; ");
  return new InvalidRequestError(
    `the request is invalid: ${broken || status.message}${record(status.recordId)}`,
    status,
  );
}

function unavailable(status: Status): UnavailableError {
  // What the broker refuses itself with this code, it has not begun.
  const nothingDone = status.isBroker && status.code === Code.Unavailable;
  return new UnavailableError(`${status.message}; ${again(status.retryAfter)}`, { ...status, nothingDone });
}

function noBroker(status: Status): NoBrokerError {
  const next = "no broker answers so; one with TLS has an address that begins with `https://`";
  return new NoBrokerError(`${status.message}; ${next}`);
}

function internal(status: Status): InternalError {
  const request = status.requestId ? ` its request id ${status.requestId}` : "";
  return new InternalError(`the broker failed: ${status.message}; tell the operator${request}`, status);
}

function statusOf(error: ConnectError): Status {
  const info = error.findDetails(ErrorInfoSchema)[0];
  const wait = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const rules = error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
  const request = error.findDetails(RequestInfoSchema)[0]?.requestId;
  const links = error.findDetails(HelpSchema).flatMap((help) => help.links.map(({ url }) => printable(url)));
  const fact = (key: string) => {
    const text = info?.metadata[key];
    return text ? printable(text) : undefined;
  };
  return {
    code: error.code,
    message: printable(error.rawMessage),
    isBroker: info !== undefined,
    reason: printable(info?.reason ?? ""),
    recordId: fact("record_id"),
    reference: fact("reference"),
    advice: fact("advice"),
    retryAfter: wait === undefined ? undefined : Math.max(0, durationMs(wait) / 1000),
    violations: rules.slice(0, VIOLATIONS_MAX).map(({ field, description }) => ({
      field: printable(field),
      description: printable(description),
    })),
    requestId: request ? printable(request) : undefined,
    approvalId: fact("approval_id"),
    // It is shown to a person to click on.
    url: links.find((url) => /^https?:\/\/\S+$/.test(url)),
  };
}

/** A text from the network, fit for a terminal and a log. */
export function printable(text: string): string {
  return text.slice(0, TEXT_MAX).replace(/\p{Cc}/gu, " ");
}

function record(id: string | undefined): string {
  return id ? ` (audit record ${id})` : "";
}

function again(seconds: number | undefined): string {
  return seconds === undefined ? "try again later" : `try again in ${Math.max(1, Math.round(seconds))} s`;
}

/** What a connection says that breaks in mid-call; it has no details, as everything has that a broker says itself. */
const BROKEN = new Set([Code.Unavailable, Code.Canceled, Code.DeadlineExceeded, Code.Aborted, Code.Unknown]);
const APPROVAL_ID = /vkl_[0-9A-Za-z]{1,64}/;
const VIOLATIONS_MAX = 128;
const TEXT_MAX = 2048;
