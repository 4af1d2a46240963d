/** A lease: its handles, renewed while it lives, and asked for again where the broker went away. */

import { setMaxListeners } from "node:events";
import { Deadline, isTransient, moment, persist, sleep, within } from "./bounds.js";
import type { Broker, LeaseOptions } from "./broker.js";
import {
  type LeaseEndCause,
  LeaseLostError,
  NoBrokerError,
  TimedOutError,
  UnavailableError,
  type ValetkeyError,
} from "./errors.js";
import { EndCause } from "./gen/valetkey/v1/lease_pb.js";
import type { AcquireLeaseResponse } from "./gen/valetkey/v1/lease_service_pb.js";
import { LeasedSecret } from "./leased.js";
import { deadHandle, digestOf, type Issued, type Opened, Slot } from "./slot.js";
import { errorOf } from "./status.js";

/** @internal What a lease needs of its broker. */
export interface Ask {
  readonly broker: Broker;
  readonly options: LeaseOptions;
  readonly deadline: number;
  readonly resume: number;
  /** Whether the caller may show another token tomorrow. */
  readonly isRenewable: boolean;
  /** Opens a stream, which lives until its signal aborts; tells before its first event what the time is there. */
  readonly open: (
    references: string[],
    signal: AbortSignal,
    onTime: (time: number) => void,
  ) => Promise<AsyncIterator<AcquireLeaseResponse>>;
  /** Waits until the broker was heard from, or the connection is gone. */
  readonly probe: () => Promise<void>;
  /** Ends a lease by its id. */
  readonly end: (leaseId: string, signal: AbortSignal) => Promise<void>;
  /** What opening may be retried after. */
  readonly mayRetry: (error: ValetkeyError) => boolean;
}

/** What a broken stream leads to: coming back, or the end. */
interface Broken {
  readonly end: LeaseEndCause;
  readonly cause?: ValetkeyError;
}

/**
 * Handles on one or more references for one tool. It renews them, asks again where the broker vanished or drained, and
 * ends with `release`, with its `await using` block, or with its signal. Nothing of it is good afterwards.
 */
export class Lease<Name extends string = string> implements AsyncDisposable {
  /** Aborts when a handle was taken back, or the lease is over and nobody here released it; its reason is a `LeaseLostError`. */
  readonly revoked: AbortSignal;
  /** Resolves when the lease is over: to why, or to nothing where it was released. Never rejects. */
  readonly ended: Promise<LeaseLostError | undefined>;
  readonly #ask: Ask;
  readonly #names: ReadonlyMap<Name, Slot>;
  readonly #slots: ReadonlyMap<string, Slot>;
  readonly #revoke = new AbortController();
  #finish: (why: LeaseLostError | undefined) => void = () => {};
  /** Aborts when there is no more use in asking again. */
  readonly #closing = new AbortController();
  #stream = new AbortController();
  #id = "";
  /** When the stream of now was opened, where the broker says it. */
  #opened: Opened | undefined;
  #isLive = false;
  #over: LeaseLostError | undefined;
  #losses = 0;
  /** Told whenever something changes. */
  #waiting = new Set<() => void>();

  /** @internal Use `Broker.lease`. */
  constructor(ask: Ask, references: Readonly<Record<Name, string>>) {
    const pairs = Object.entries<string>(references) as [Name, string][];
    this.#slots = new Map(pairs.map(([, reference]) => [reference, new Slot(reference, ask.options)]));
    this.#names = new Map(pairs.map(([name, reference]) => [name, this.#slots.get(reference) as Slot]));
    this.#ask = ask;
    this.revoked = this.#revoke.signal;
    this.ended = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  /** @internal Opens it, within the deadline. */
  async start(): Promise<this> {
    const { signal } = this.#ask.options;
    const deadline = new Deadline(this.#ask.deadline);
    const events = await this.#open(deadline, signal, 0);
    const giveUp = () => void this.release();
    // One signal may be for hundreds of leases: that is no leak.
    if (signal) setMaxListeners(0, signal);
    signal?.addEventListener("abort", giveUp, { once: true });
    void this.#keep(events).finally(() => signal?.removeEventListener("abort", giveUp));
    if (signal?.aborted) giveUp();
    return this;
  }

  /** The lease's id, `vkl_…`; another one after the broker was away. Not a secret. */
  get id(): string {
    return this.#id;
  }

  /** The program that the handles are for. */
  get tool(): string {
    return this.#ask.options.tool;
  }

  /** The names of its secrets. */
  get names(): Name[] {
    return [...this.#names.keys()];
  }

  /** Whether its handles are good: it is neither over nor being asked for again. */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** The secret of this name. */
  get(name: Name): LeasedSecret {
    const slot = this.#names.get(name);
    if (slot === undefined) throw new TypeError(`the lease has nothing named \`${name}\``);
    return new LeasedSecret(this.#ask.broker, this, slot, this.#ask.deadline);
  }

  /** The secret that this handle is or was for; `undefined` where it is none of this lease. */
  find(handle: string): LeasedSecret | undefined {
    const digest = digestOf(handle);
    const slot = [...this.#slots.values()].find((slot) => slot.knows(digest));
    return slot && new LeasedSecret(this.#ask.broker, this, slot, this.#ask.deadline);
  }

  /** Waits until its handles are good, at most for the deadline. Throws `LeaseLostError` where it is over. */
  async ready({ signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    await within(new Deadline(this.#ask.deadline), signal, async (inner) => {
      while (!this.#isLive) {
        if (this.#over) throw this.#over;
        await this.#change(inner);
      }
    });
  }

  /** Ends it: its handles are dead when this returns, or, where the broker does not answer, seconds later. */
  async release(): Promise<void> {
    if (this.#over) return;
    const wasLive = this.#isLive;
    this.#end("released");
    try {
      const soon = new Deadline(Math.min(this.#ask.deadline, RELEASE_MAX));
      if (wasLive) await within(soon, undefined, (signal) => this.#ask.end(this.#id, signal));
    } catch {
      // Closing the stream ends it as well.
    } finally {
      this.#stream.abort();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  toJSON(): object {
    const state = this.#over ? this.#over.end : this.#isLive ? "live" : "interrupted";
    return { lease: this.#id, tool: this.tool, state, names: this.names };
  }

  [Symbol.for("nodejs.util.inspect.custom")](): object {
    return this.toJSON();
  }

  /** @internal The handle of now. */
  current(slot: Slot): Issued {
    if (this.#over) throw this.#over;
    if (slot.failure) throw slot.failure;
    if (!this.#isLive) throw interrupted();
    const issued = slot.live();
    if (issued === undefined || slot.isSpent) throw deadHandle(slot);
    return issued;
  }

  /**
   * @internal Waits a little, and until the broker was heard from, for this handle to be replaced or to die with its stream;
   * whether it came to that. On a network that went silent the broker knows before the client that a handle is dead.
   */
  async isOutdated(slot: Slot, issued: Issued, ms: number, signal: AbortSignal): Promise<boolean> {
    const isCurrent = () => this.#isLive && slot.live() === issued;
    let isOver = false;
    const over = Promise.all([sleep(ms, signal), this.#ask.probe()]).then(() => {
      isOver = true;
    });
    // Where the handle is replaced first, nobody waits for it.
    over.catch(() => {});
    while (isCurrent() && !isOver) await Promise.race([this.#change(signal), over]);
    return !isCurrent();
  }

  /** Opens a stream and waits for a first answer to each reference; again and again, until the deadline. */
  async #open(deadline: Deadline, signal: AbortSignal | undefined, failures: number) {
    const { mayRetry } = this.#ask;
    return await persist({ deadline, signal, mayRetry, failures }, async () => {
      const stream = new AbortController();
      try {
        const events = await within(deadline, signal, (inner) => this.#begin(stream, inner));
        this.#stream = stream;
        return events;
      } catch (error) {
        stream.abort();
        this.#clear();
        throw error;
      }
    });
  }

  async #begin(stream: AbortController, signal: AbortSignal): Promise<AsyncIterator<AcquireLeaseResponse>> {
    signal.addEventListener("abort", () => stream.abort(), { once: true });
    this.#opened = undefined;
    const wanted = this.#wanted();
    for (const slot of wanted) {
      slot.clear();
      slot.failure = undefined;
    }
    const events = await this.#ask.open(
      wanted.map((slot) => slot.reference),
      stream.signal,
      (time) => {
        this.#opened = { time, moment: moment() };
      },
    );
    // There is at least one reference.
    for (let isFirst = true; !wanted.every((slot) => slot.isSettled); isFirst = false) {
      const { done, value } = await events.next();
      if (done) throw new UnavailableError("the stream of the lease closed before its handles were there");
      if ((value.event.case === "opened") !== isFirst)
        throw new NoBrokerError("a lease begins with `opened`; no broker answers so");
      const broken = this.#apply(value);
      if (broken === undefined) continue;
      if (!this.#mayMend(broken.end)) throw lost(broken.end);
      throw new UnavailableError(`the broker ended the lease at once (${broken.end})`);
    }
    if (!this.#over) this.#isLive = true;
    this.#tell();
    return events;
  }

  /** What is worth asking for again: not what was used, and not what policy took back, which would have all refused. */
  #wanted(): Slot[] {
    return [...this.#slots.values()].filter((slot) => !slot.isSpent && !(slot.failure instanceof LeaseLostError));
  }

  /** Follows the stream, and those that come after it, to the end. */
  async #keep(events: AsyncIterator<AcquireLeaseResponse>): Promise<void> {
    let next = events;
    for (;;) {
      const since = performance.now();
      const broken = await this.#follow(next);
      this.#clear();
      this.#stream.abort();
      if (this.#over) return;
      this.#losses = performance.now() - since < STABLE_AFTER ? this.#losses + 1 : 1;
      if (!this.#mayComeBack(broken)) return this.#end(broken.end, broken.cause);
      if (this.#wanted().length === 0) return this.#end("expiry");
      this.#tell();
      try {
        next = await this.#open(new Deadline(this.#ask.resume), this.#closing.signal, this.#losses);
      } catch (thrown) {
        const error = errorOf(thrown);
        const isAway = isTransient(error) || error instanceof TimedOutError;
        const end = error instanceof LeaseLostError ? error.end : "refused";
        return this.#end(isAway ? "unavailable" : end, error);
      }
      if (this.#over) {
        // Released while it was asked for again.
        this.#stream.abort();
        return;
      }
    }
  }

  async #follow(events: AsyncIterator<AcquireLeaseResponse>): Promise<Broken> {
    try {
      for (;;) {
        const { done, value } = await events.next();
        if (done) return { end: "unavailable" };
        const broken = this.#apply(value);
        if (broken) return broken;
      }
    } catch (thrown) {
      return { end: "unavailable", cause: errorOf(thrown) };
    }
  }

  /** Takes an event in; what it ends, where it is the last. Those that nobody knows yet are skipped. */
  #apply({ event }: AcquireLeaseResponse): Broken | undefined {
    switch (event.case) {
      case "opened":
        this.#id = event.value.leaseId;
        return undefined;
      case "issued":
        this.#slots.get(event.value.reference)?.take(event.value, this.#opened);
        break;
      case "refused":
        this.#slots.get(event.value.reference)?.refuse(event.value);
        break;
      case "renewed": {
        const { issued } = event.value;
        if (issued) this.#slots.get(issued.reference)?.take(issued, undefined);
        break;
      }
      case "revoked":
        this.#revokeHandle(event.value.reference, event.value.handleId, event.value.cause);
        break;
      case "ended":
        return { end: CAUSES.get(event.value.cause) ?? "unknown" };
      // After `draining` the handles are good until `ended`.
      case "draining":
      case undefined:
        return undefined;
    }
    this.#tell();
    return undefined;
  }

  #revokeHandle(reference: string, handleId: string, cause: EndCause): void {
    const slot = this.#slots.get(reference);
    if (slot?.issued?.handleId !== handleId) return;
    slot.clear();
    slot.failure = takenBack(slot.reference, CAUSES.get(cause) ?? "unknown");
    this.#revoke.abort(slot.failure);
  }

  #mayComeBack({ end }: Broken): boolean {
    if (this.#losses > LOSSES_MAX) return false;
    return this.#mayMend(end);
  }

  /** Whether asking again may help. */
  #mayMend(end: LeaseEndCause): boolean {
    return end === "unavailable" || (end === "credential" && this.#ask.isRenewable);
  }

  #end(end: LeaseEndCause, cause?: ValetkeyError): void {
    if (this.#over) return;
    this.#over = lost(end, cause);
    this.#closing.abort(this.#over);
    this.#clear();
    this.#finish(end === "released" ? undefined : this.#over);
    if (end !== "released") this.#revoke.abort(this.#over);
    this.#tell();
  }

  /** From now on no handle of the stream that was is given out. */
  #clear(): void {
    this.#isLive = false;
    for (const slot of this.#slots.values()) if (!slot.isSpent) slot.clear();
  }

  #tell(): void {
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const wake of waiting) wake();
  }

  async #change(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    let wake = () => {};
    await new Promise<void>((resolve) => {
      wake = resolve;
      this.#waiting.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
    this.#waiting.delete(wake);
    signal.removeEventListener("abort", wake);
    signal.throwIfAborted();
  }
}

function lost(end: LeaseEndCause, cause?: ValetkeyError): LeaseLostError {
  const why = cause === undefined ? "" : `: ${cause.message}`;
  return new LeaseLostError(`the lease is over (${ENDS[end]}${why}); its handles are dead`, end, cause);
}

function takenBack(reference: string, end: LeaseEndCause): LeaseLostError {
  const message = `the handle for \`${reference}\` was taken back (${ENDS[end]})`;
  return new LeaseLostError(message, end, undefined, reference);
}

function interrupted(): UnavailableError {
  const message = "the broker went away, and the lease is being asked for again; wait for `lease.ready()`";
  return new UnavailableError(message, { nothingDone: true });
}

const ENDS: Readonly<Record<LeaseEndCause, string>> = {
  released: "it was released",
  caller: "somebody ended it",
  policy: "policy no longer allows it",
  expiry: "its handles have had their time",
  credential: "the token that it was opened with is over",
  refused: "asking again was refused",
  unavailable: "the broker did not come back in time",
  unknown: "for a cause that this version does not know",
};

/** Those that asking again may mend are `unavailable`: the broker stops, the stream broke or could not be read in time. */
const CAUSES = new Map<EndCause, LeaseEndCause>([
  [EndCause.CALLER, "caller"],
  [EndCause.DISCONNECT, "unavailable"],
  [EndCause.POLICY, "policy"],
  [EndCause.EXPIRY, "expiry"],
  [EndCause.SHUTDOWN, "unavailable"],
  [EndCause.STALLED, "unavailable"],
  [EndCause.UNAVAILABLE, "unavailable"],
  [EndCause.CREDENTIAL, "credential"],
]);
/** A stream that lived so long, in milliseconds, is no sign that the next one will not. */
const STABLE_AFTER = 5000;
/** A broker that does not answer so soon, in seconds, will see that the stream is closed. */
const RELEASE_MAX = 5;
/** So many streams that broke soon after each other are enough. */
const LOSSES_MAX = 10;
