/** How what the broker says becomes an error. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { ApprovalRequiredError } from "../src/errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  HelpSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "../src/gen/google/rpc/error_details_pb.js";
import { errorOf } from "../src/status.js";

type Detail = NonNullable<ConstructorParameters<typeof ConnectError>[3]>[number];

function info(reason: string, metadata: Record<string, string> = {}): Detail {
  return { desc: ErrorInfoSchema, value: { reason, domain: "valetkey", metadata } };
}

function check(code: Code, details: Detail[], name: string, says: string): void {
  const error = errorOf(new ConnectError("the message", code, undefined, details));
  assert.equal(error.name, name);
  assert.equal(error.message, says);
}

test("each fault says what to do", () => {
  const denied = { record_id: "7", advice: "use navan", reference: "op://a/b/c" };
  check(
    Code.PermissionDenied,
    [info("ACCESS_DENIED", denied)],
    "DeniedError",
    "access denied for `op://a/b/c`; use navan (audit record 7)",
  );
  check(Code.PermissionDenied, [info("ACCESS_DENIED")], "DeniedError", "access denied; ask a reviewer for the reason");
  check(
    Code.FailedPrecondition,
    [info("HANDLE_NOT_ACTIVE", { record_id: "7" })],
    "HandleNotActiveError",
    "the handle is not active; ask the agent for a fresh one (audit record 7)",
  );
  check(Code.FailedPrecondition, [info("AMBIGUOUS_REFERENCE")], "PreconditionError", "the message");
  const missing = info("ITEM_NOT_FOUND", { reference: "op://a/b/c", record_id: "7" });
  check(Code.NotFound, [missing], "NotFoundError", "the message; check it against the vault (audit record 7)");
  check(Code.NotFound, [info("RECORD_NOT_FOUND")], "NotFoundError", "the message");
  check(Code.Unavailable, [info("AUDIT_UNAVAILABLE")], "UnavailableError", "the message; try again later");
  check(Code.Unavailable, [], "UnavailableError", "the message; try again later");
  check(Code.Unknown, [], "UnavailableError", "the message; try again later");
  const wait: Detail = { desc: RetryInfoSchema, value: { retryDelay: { seconds: 9n } } };
  check(
    Code.ResourceExhausted,
    [info("RESOLVER_RATE_LIMITED"), wait],
    "LimitReachedError",
    "the message; try again in 9 s",
  );
  const rules: Detail = {
    desc: BadRequestSchema,
    value: {
      fieldViolations: [
        { field: "tool", description: "must not be empty" },
        { field: "ttl", description: "must be positive" },
      ],
    },
  };
  check(
    Code.InvalidArgument,
    [info("INVALID_TOOL"), rules],
    "InvalidRequestError",
    "the request is invalid: tool must not be empty; ttl must be positive",
  );
  const request: Detail = { desc: RequestInfoSchema, value: { requestId: "42" } };
  check(
    Code.Internal,
    [info("INTERNAL"), request],
    "InternalError",
    "the broker failed: the message; tell the operator its request id 42",
  );
  const tls = "the message; no broker answers so; one with TLS has an address that begins with `https://`";
  for (const code of [Code.Internal, Code.Unimplemented, Code.PermissionDenied]) check(code, [], "NoBrokerError", tls);
});

test("an approval names what to approve, and where", () => {
  const info_ = info("APPROVAL_REQUIRED", { approval_id: "vkl_0a", record_id: "7", reference: "op://a/b/c" });
  const help = (...urls: string[]): Detail => ({ desc: HelpSchema, value: { links: urls.map((url) => ({ url })) } });
  const says = (ways: string) =>
    `a person must approve this first; ask one ${ways}; when they have, ask again with the same tool and references`;
  const approve = "to run `valetkey approval approve vkl_0a`";
  const check_ = (details: Detail[], message: string) =>
    check(Code.FailedPrecondition, details, "ApprovalRequiredError", message);
  check_([info_], `${says(approve)} (audit record 7)`);
  check_([info_, help("https://b/vkl_0a")], `${says(`to open https://b/vkl_0a, or ${approve}`)} (audit record 7)`);
  // It is shown to a person to click on.
  check_([info_, help("javascript:alert(1)", "file:///etc", "")], `${says(approve)} (audit record 7)`);
  check_([info("APPROVAL_REQUIRED")], says("to look at `valetkey approval list`"));

  const error = errorOf(new ConnectError("no", Code.FailedPrecondition, undefined, [info_, help("https://b/vkl_0a")]));
  assert.ok(error instanceof ApprovalRequiredError);
  const { approvalId, url, reference, recordId, reason } = error;
  assert.deepEqual(
    [approvalId, url, reference, recordId, reason],
    ["vkl_0a", "https://b/vkl_0a", "op://a/b/c", "7", "APPROVAL_REQUIRED"],
  );
});

test("hostile text is harmless", () => {
  const error = errorOf(new ConnectError(`\u001b[2J${"a".repeat(9999)}`, Code.Unavailable));
  assert.ok(!error.message.includes("\u001b") && error.message.length < 3000);
});
