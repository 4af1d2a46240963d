/** Waiting, but never for ever. All of it by a clock that only goes forward: the wall clock may be wrong. */

import { uptime } from "node:os";
import { LimitReachedError, TimedOutError, UnavailableError, type ValetkeyError } from "./errors.js";
import { errorOf } from "./status.js";

/** Milliseconds of a clock that only goes forward. */
export function now(): number {
  return performance.now();
}

/** A moment, by the clocks of this machine that only go forward. */
export interface Moment {
  readonly at: number;
  /** By a clock that does not stop where the machine sleeps, if there is one. */
  readonly uptime: number;
}

/** This moment. */
export function moment(): Moment {
  // Elsewhere the uptime follows the wall clock.
  const counts = process.platform === "linux" || process.platform === "win32";
  return { at: now(), uptime: counts ? uptime() * 1000 : 0 };
}

/** Milliseconds since a moment, with those for which the machine slept. */
export function since(then: Moment): number {
  const current = moment();
  const awake = current.at - then.at;
  const all = current.uptime - then.uptime;
  // Some count it in whole seconds.
  return all > awake + 1000 ? all : awake;
}

/** A moment by which something must be over. */
export class Deadline {
  readonly seconds: number;
  readonly #end: number;

  constructor(seconds: number) {
    this.seconds = seconds;
    this.#end = now() + seconds * 1000;
  }

  /** Milliseconds until then; 0 once it is over. */
  left(): number {
    return Math.max(0, this.#end - now());
  }

  /** What to throw when it is over. */
  error(): TimedOutError {
    return new TimedOutError(`no answer within ${this.seconds} s; look into the audit log before asking again`);
  }
}

/** Runs `work` until it is done, the deadline is over or the caller gives up, whichever is first. */
export async function within<T>(
  deadline: Deadline,
  outer: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  outer?.throwIfAborted();
  const inner = new AbortController();
  let stop: (why: unknown) => void = () => {};
  const stopped = new Promise<never>((_, reject) => {
    stop = (why) => {
      reject(why);
      inner.abort(why);
    };
  });
  const giveUp = () => stop(outer?.reason);
  const timer = setTimeout(() => stop(deadline.error()), Math.min(deadline.left(), TIMER_MAX));
  outer?.addEventListener("abort", giveUp, { once: true });
  try {
    return await Promise.race([work(inner.signal), stopped]);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", giveUp);
  }
}

/** How to go on after failures. */
export interface Persistence {
  /** When to stop trying. */
  readonly deadline: Deadline;
  readonly signal: AbortSignal | undefined;
  /** Whether another attempt may help, and may be made, after this error. */
  readonly mayRetry: (error: ValetkeyError) => boolean;
  /** How many failures there were before; the first attempt waits as long as they ask for. */
  readonly failures?: number;
}

/** Makes attempts until one succeeds; between them waits longer and longer, and never in step with others. */
export async function persist<T>(how: Persistence, attempt: () => Promise<T>): Promise<T> {
  const { deadline, signal, mayRetry } = how;
  let failures = how.failures ?? 0;
  if (failures > 0) await sleep(Math.min(pause(failures), deadline.left()), signal);
  for (;;) {
    try {
      return await attempt();
    } catch (thrown) {
      if (signal?.aborted) throw signal.reason;
      const error = errorOf(thrown);
      failures += 1;
      const wait = Math.max(pause(failures), retryAfter(error) * 1000);
      if (!mayRetry(error) || wait >= deadline.left()) throw error;
      await sleep(wait, signal);
    }
  }
}

/** Whether the same request may succeed a little later. */
export function isTransient(error: ValetkeyError): boolean {
  return error instanceof UnavailableError || (error instanceof LimitReachedError && error.retryAfter !== undefined);
}

/** Waits; throws the signal's reason where that comes first. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Half of it is fixed, half is chance: brokers are not asked by everybody at once. */
function pause(failures: number): number {
  const full = Math.min(PAUSE_FIRST * 2 ** Math.min(failures - 1, 16), PAUSE_MAX);
  return full * (0.5 + Math.random() / 2);
}

function retryAfter(error: ValetkeyError): number {
  const seconds = error instanceof UnavailableError || error instanceof LimitReachedError ? error.retryAfter : 0;
  return seconds ?? 0;
}

const PAUSE_FIRST = 100;
const PAUSE_MAX = 2000;
/** Beyond this a timer fires at once. */
const TIMER_MAX = 2 ** 31 - 1;
