/**
 * A fake broker for tests, in this process, whose decisions the test scripts. The client that talks to it is the real one.
 *
 *     await using fake = new FakeBroker().allow("op://Travel/Navan/password", "hunter2");
 *     await using lease = await fake.agent().lease({ password: "op://Travel/Navan/password" }, { tool: "book", purpose: "test" });
 *     await lease.get("password").redeem({ with: fake.tool("book") });
 *
 * It decides nothing by itself: what is not allowed is refused. It is no broker to keep secrets in: it encrypts and
 * records nothing, and its handles live until they are redeemed, revoked or released.
 */

import { randomBytes } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createRouterTransport, type HandlerContext, type Interceptor } from "@connectrpc/connect";
import { Broker, LINK, type Patience } from "./broker.js";
import { UnavailableError } from "./errors.js";
import { ErrorInfoSchema, HelpSchema } from "./gen/google/rpc/error_details_pb.js";
import { Decision, EndCause, Redeemer } from "./gen/valetkey/v1/lease_pb.js";
import {
  type AcquireLeaseRequest,
  type AcquireLeaseResponseSchema,
  LeaseService,
} from "./gen/valetkey/v1/lease_service_pb.js";
import type { Link } from "./link.js";

/** A call that the broker got. */
export interface Call {
  readonly kind: "acquire" | "redeem" | "check" | "end";
  /** Who called, such as `agent:test` or `tool:navan.book_flight`. */
  readonly caller: string;
  /** The tool that was named, in an acquire or a check. */
  readonly tool: string;
  readonly references: readonly string[];
  readonly purpose: string;
  /** Empty where it was allowed, or else the reason: `ACCESS_DENIED`, … */
  readonly refusal: string;
}

/** A gRPC status code. */
export type CodeName =
  | "Aborted"
  | "Canceled"
  | "DeadlineExceeded"
  | "FailedPrecondition"
  | "Internal"
  | "InvalidArgument"
  | "NotFound"
  | "PermissionDenied"
  | "ResourceExhausted"
  | "Unauthenticated"
  | "Unavailable";

type OutgoingDetail = NonNullable<ConstructorParameters<typeof ConnectError>[3]>[number];
type Event = MessageInitShape<typeof AcquireLeaseResponseSchema>;

interface FakeHandle {
  readonly text: string;
  readonly reference: string;
  readonly lease: FakeLease;
  isActive: boolean;
}

interface FakeLease {
  readonly id: string;
  readonly tool: string;
  /** Events that are still to be read, and who waits for one. */
  readonly queue: Event[];
  wake: () => void;
  failure: ConnectError | undefined;
}

/** A broker that says what a test wants it to say. */
export class FakeBroker implements AsyncDisposable {
  /** Every call that it got, in order. */
  readonly calls: Call[] = [];
  readonly #values = new Map<string, string>();
  readonly #advice = new Map<string, string>();
  readonly #approvals = new Map<string, { readonly id: string; readonly url: string | undefined }>();
  readonly #handles = new Map<string, FakeHandle>();
  readonly #leases = new Map<string, FakeLease>();
  readonly #brokers: Broker[] = [];
  #isAway = false;
  #redeemer = Redeemer.TOOL;
  #failures: ConnectError[] = [];
  #record = 0;

  /** Allows leases on this reference, and says what is behind it. */
  allow(reference: string, value: string): this {
    this.#values.set(reference, value);
    return this;
  }

  /** Refuses leases on this reference from now on; handles that are out stay good. */
  deny(reference: string, advice = ""): this {
    this.#values.delete(reference);
    if (advice !== "") this.#advice.set(reference, advice);
    return this;
  }

  /** Has the holder of a lease redeem its handles, as `@redeem_by("agent")` does. */
  redeemByAgent(): this {
    this.#redeemer = Redeemer.AGENT;
    return this;
  }

  /** Has leases on this reference wait for a person: refused until `approve`. `url` is where they would approve. */
  requireApproval(reference: string, url?: string): this {
    this.#approvals.set(reference, { id: `vkl_${random(16)}`, url });
    return this;
  }

  /** Approves, as a person would, what was refused with this id. */
  approve(approvalId: string): void {
    const [reference] = [...this.#approvals].find(([, { id }]) => id === approvalId) ?? [];
    if (reference === undefined) throw new TypeError(`nothing waits for an approval as \`${approvalId}\``);
    this.#approvals.delete(reference);
  }

  /** Answers the next call with a status of this reason, such as `AUDIT_UNAVAILABLE`, and gRPC code. */
  failNext(reason: string, code: CodeName = "Unavailable"): this {
    this.#failures.push(this.#refusal(Code[code], reason, "scripted by the test"));
    return this;
  }

  /** The broker as an agent sees it. */
  agent(name = "test", patience: Patience = {}): Broker {
    return this.#as(`agent:${name}`, patience);
  }

  /** The broker as a tool sees it. */
  tool(name: string, patience: Patience = {}): Broker {
    return this.#as(`tool:${name}`, patience);
  }

  /** Gives every live lease a fresh handle for this reference; the one before is dead. */
  renew(reference: string): void {
    for (const handle of this.#active(reference)) {
      handle.isActive = false;
      const issued = this.#issue(handle.lease, reference);
      this.#say(handle.lease, { case: "renewed", value: { issued, previousHandleId: idOf(handle.text) } });
    }
  }

  /** Revokes the handles for this reference, as a changed policy does. A lease without any other ends. */
  revoke(reference: string): void {
    const cause = EndCause.POLICY;
    for (const handle of this.#active(reference)) {
      handle.isActive = false;
      this.#say(handle.lease, { case: "revoked", value: { reference, handleId: idOf(handle.text), cause } });
      const others = [...this.#handles.values()].some((other) => other.lease === handle.lease && other.isActive);
      if (!others) this.#end(handle.lease, cause);
    }
  }

  /** Stops like a broker that drains: every lease is told, and ends. It takes new ones at once. */
  drain(): void {
    for (const lease of this.#leases.values()) {
      this.#say(lease, { case: "draining", value: {} });
      this.#end(lease, EndCause.SHUTDOWN);
    }
  }

  /** Is gone without a word, until `comeBack`. */
  vanish(): void {
    this.#isAway = true;
    for (const lease of this.#leases.values()) {
      lease.failure = new ConnectError("the connection broke", Code.Unavailable);
      this.#forget(lease);
      lease.wake();
    }
  }

  /** Is there again. */
  comeBack(): void {
    this.#isAway = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#brokers.map((broker) => broker.close()));
  }

  #as(caller: string, patience: Patience): Broker {
    const identify: Interceptor = (next) => (request) => {
      request.header.set(CALLER, caller);
      return next(request);
    };
    const transport = createRouterTransport(
      ({ service }) => {
        service(LeaseService, {
          acquireLease: (request, context) => this.#acquire(request, context),
          redeemHandle: (request, context) => this.#redeem(request.handle, context),
          checkAccess: ({ tool, reference }, context) => this.#check(tool, reference, context),
          endLease: ({ leaseId }, context) => this.#endByCaller(leaseId, context),
        });
      },
      { transport: { interceptors: [identify] } },
    );
    const ready = async () => {
      if (this.#isAway) throw new UnavailableError("no broker answers: the fake one vanished", { nothingDone: true });
    };
    const link: Link = {
      transport,
      ready,
      wasReached: true,
      isRenewable: false,
      probe: async () => {},
      close: () => {},
    };
    const broker = new Broker({ ...patience, [LINK]: link } as Patience);
    this.#brokers.push(broker);
    return broker;
  }

  async *#acquire(request: AcquireLeaseRequest, context: HandlerContext): AsyncGenerator<Event> {
    const { tool, references, purpose, partial } = request;
    const note = (refusal: string) => this.#note("acquire", context, { tool, references, purpose, refusal });
    this.#scripted(note);
    const refused = references.find((reference) => this.#reasonAgainst(reference) !== "");
    note(refused === undefined ? "" : this.#reasonAgainst(refused));
    if (refused !== undefined && !partial) throw this.#refusalOf(refused);
    const lease: FakeLease = { id: `vkl_${random(16)}`, tool, queue: [], wake: () => {}, failure: undefined };
    this.#leases.set(lease.id, lease);
    try {
      yield { event: { case: "opened", value: { leaseId: lease.id, references } } };
      for (const reference of references) {
        yield this.#reasonAgainst(reference) === ""
          ? { event: { case: "issued", value: this.#issue(lease, reference) } }
          : { event: { case: "refused", value: this.#refused(reference) } };
      }
      yield* this.#events(lease, context.signal);
    } finally {
      this.#forget(lease);
    }
  }

  async *#events(lease: FakeLease, signal: AbortSignal): AsyncGenerator<Event> {
    while (!signal.aborted) {
      const event = lease.queue.shift();
      if (event !== undefined) {
        yield event;
        if (event.event?.case === "ended") return;
        continue;
      }
      if (lease.failure !== undefined) throw lease.failure;
      await new Promise<void>((resolve) => {
        lease.wake = resolve;
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  #redeem(text: string, context: HandlerContext) {
    const handle = this.#handles.get(text);
    const references = handle === undefined ? [] : [handle.reference];
    const note = (refusal: string) => this.#note("redeem", context, { references, refusal });
    this.#scripted(note);
    const caller = context.requestHeader.get(CALLER) ?? "";
    const mayRedeem =
      handle?.isActive &&
      (this.#redeemer === Redeemer.AGENT ? caller.startsWith("agent:") : caller === `tool:${handle.lease.tool}`);
    const value = handle && this.#values.get(handle.reference);
    if (!handle || !mayRedeem || value === undefined) {
      note("HANDLE_NOT_ACTIVE");
      throw this.#refusal(Code.FailedPrecondition, "HANDLE_NOT_ACTIVE", "the handle cannot be redeemed");
    }
    handle.isActive = false;
    note("");
    return { secretValue: new TextEncoder().encode(value), recordId: String(this.#record) };
  }

  #check(tool: string, reference: string, context: HandlerContext) {
    const isAllowed = this.#values.has(reference);
    const note = (refusal: string) => this.#note("check", context, { tool, references: [reference], refusal });
    this.#scripted(note);
    note(isAllowed ? "" : "ACCESS_DENIED");
    return {
      decision: isAllowed ? Decision.ALLOW : Decision.DENY,
      approvalRequired: isAllowed && this.#approvals.has(reference),
      advice: isAllowed ? "" : (this.#advice.get(reference) ?? ""),
      recordId: String(this.#record),
      uses: isAllowed ? 1 : 0,
      redeemer: isAllowed ? this.#redeemer : Redeemer.UNSPECIFIED,
    };
  }

  #endByCaller(leaseId: string, context: HandlerContext) {
    const lease = this.#leases.get(leaseId);
    this.#note("end", context, { refusal: lease === undefined ? "ACCESS_DENIED" : "" });
    if (lease === undefined) throw this.#denied("");
    this.#end(lease, EndCause.CALLER);
    return {};
  }

  #issue(lease: FakeLease, reference: string) {
    const text = `vkh_${random(16)}_${random(40)}`;
    this.#handles.set(text, { text, reference, lease, isActive: true });
    return {
      reference,
      handle: text,
      handleId: idOf(text),
      // Each a day after the one before: nobody's clock lets them expire.
      expireTime: timestampFromMs(this.#handles.size * 86_400_000),
      uses: 1,
      redeemer: this.#redeemer,
      recordId: String(this.#record),
    };
  }

  /** Why a lease on this reference is refused; empty where it is not. */
  #reasonAgainst(reference: string): string {
    if (!this.#values.has(reference)) return "ACCESS_DENIED";
    return this.#approvals.has(reference) ? "APPROVAL_REQUIRED" : "";
  }

  #refused(reference: string) {
    const reason = this.#reasonAgainst(reference);
    const advice = this.#advice.get(reference) ?? "ask a reviewer for the reason";
    const message =
      reason === "APPROVAL_REQUIRED"
        ? `needs the approval of a person: ${this.#approvals.get(reference)?.id}`
        : `access denied; ${advice}`;
    return { reference, reason, message, recordId: String(this.#record) };
  }

  #refusalOf(reference: string): ConnectError {
    const approval = this.#approvals.get(reference);
    if (this.#reasonAgainst(reference) !== "APPROVAL_REQUIRED" || approval === undefined)
      return this.#denied(reference);
    const { id, url } = approval;
    const facts = { reference, approval_id: id };
    const help = url === undefined ? [] : [{ desc: HelpSchema, value: { links: [{ description: "approve", url }] } }];
    return this.#refusal(Code.FailedPrecondition, "APPROVAL_REQUIRED", "a person must approve this", facts, help);
  }

  #denied(reference: string): ConnectError {
    const advice = this.#advice.get(reference) ?? "";
    return this.#refusal(Code.PermissionDenied, "ACCESS_DENIED", "policy does not allow this", { reference, advice });
  }

  #refusal(
    code: Code,
    reason: string,
    message: string,
    metadata: Record<string, string> = {},
    more: OutgoingDetail[] = [],
  ): ConnectError {
    const value = { reason, domain: "valetkey", metadata: { record_id: String(this.#record), ...metadata } };
    return new ConnectError(message, code, undefined, [{ desc: ErrorInfoSchema, value }, ...more]);
  }

  #scripted(note: (refusal: string) => void): void {
    const failure = this.#failures.shift();
    if (failure === undefined) return;
    note(failure.findDetails(ErrorInfoSchema)[0]?.reason ?? "");
    throw failure;
  }

  #note(kind: Call["kind"], context: HandlerContext, what: Partial<Call>): void {
    this.#record += 1;
    const caller = context.requestHeader.get(CALLER) ?? "";
    this.calls.push({ kind, caller, tool: "", references: [], purpose: "", refusal: "", ...what });
  }

  #active(reference: string): FakeHandle[] {
    return [...this.#handles.values()].filter((handle) => handle.reference === reference && handle.isActive);
  }

  #say(lease: FakeLease, event: NonNullable<Event["event"]>): void {
    lease.queue.push({ event });
    lease.wake();
  }

  #end(lease: FakeLease, cause: EndCause): void {
    this.#forget(lease);
    this.#say(lease, { case: "ended", value: { cause } });
  }

  #forget(lease: FakeLease): void {
    this.#leases.delete(lease.id);
    for (const handle of this.#handles.values()) if (handle.lease === lease) handle.isActive = false;
  }
}

function idOf(handle: string): string {
  return handle.slice(0, handle.lastIndexOf("_"));
}

/** So many characters of `0-9 a-v`. */
function random(length: number): string {
  return [...randomBytes(length)].map((byte) => (byte % 32).toString(32)).join("");
}

const CALLER = "x-fake-caller";
