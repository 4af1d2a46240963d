/** One secret of a lease: the handle for the model, the value for the tool. */

import { Deadline, within } from "./bounds.js";
import type { Broker } from "./broker.js";
import { HandleNotActiveError, PreconditionError, UnavailableError, type ValetkeyError } from "./errors.js";
import type { Lease } from "./lease.js";
import type { Secret } from "./secret.js";
import type { Issued, Slot } from "./slot.js";

/** How to redeem. */
export interface RedeemOptions {
  /** The broker as the tool that the lease names sees it. Default: as the holder of the lease does. */
  readonly with?: Broker;
  /** The host that the value will be sent to. */
  readonly destination?: string;
  readonly signal?: AbortSignal;
}

/** One secret of a lease. It shows its handle to whoever asks for it, and no value to anybody. */
export class LeasedSecret {
  readonly #broker: Broker;
  readonly #lease: Lease;
  readonly #slot: Slot;
  readonly #deadline: number;

  /** @internal Use `Lease.get`. */
  constructor(broker: Broker, lease: Lease, slot: Slot, deadline: number) {
    this.#broker = broker;
    this.#lease = lease;
    this.#slot = slot;
    this.#deadline = deadline;
  }

  /** The reference as asked. */
  get reference(): string {
    return this.#slot.reference;
  }

  /** The program that the handle is for. */
  get tool(): string {
    return this.#lease.tool;
  }

  /**
   * The handle that is good now, `vkh_…`: safe in a prompt. Never one that is known to be dead: throws `LeaseLostError`
   * where the lease is over, `DeniedError` where the reference was refused (`partial`), `HandleNotActiveError` where it was
   * redeemed or could not be renewed, and `UnavailableError` while the lease is being asked for again.
   */
  get handle(): string {
    return this.#lease.current(this.#slot).handle;
  }

  /** The part of the handle that may be logged: `vkh_<id>`. Throws as `handle` does. */
  get handleId(): string {
    return this.#lease.current(this.#slot).handleId;
  }

  /** The audit record of the decision. Throws as `handle` does. */
  get recordId(): string {
    return this.#lease.current(this.#slot).recordId;
  }

  /** Who can redeem it. Throws as `handle` does. */
  get redeemer(): "tool" | "agent" | "unknown" {
    return this.#lease.current(this.#slot).redeemer;
  }

  /** Why there is no handle, where it was refused or revoked. */
  get failure(): ValetkeyError | undefined {
    return this.#slot.failure;
  }

  /**
   * The value. Where the broker went away, waits for it to come back and uses the fresh handle, at most for the deadline.
   * Throws as `handle` does, and as `Broker.redeem`.
   */
  async redeem(options: RedeemOptions = {}): Promise<Secret> {
    const deadline = new Deadline(this.#deadline);
    return await within(deadline, options.signal, async (signal) => {
      for (;;) {
        await this.#lease.ready({ signal });
        const issued = this.#lease.current(this.#slot);
        const tool = this.#redeemer(issued, options.with);
        const { destination } = options;
        try {
          const secret = await tool.redeem(issued.handle, {
            signal,
            ...(destination !== undefined && { destination }),
          });
          this.#slot.spend(issued);
          return secret;
        } catch (error) {
          // The handle may be dead or spent; a fresh one is another decision, and another record.
          const wait = staleFor(error);
          if (wait === 0 || !(await this.#lease.isOutdated(this.#slot, issued, wait, signal))) throw error;
        }
      }
    });
  }

  toJSON(): object {
    return { reference: this.reference };
  }

  [Symbol.for("nodejs.util.inspect.custom")](): object {
    return this.toJSON();
  }

  #redeemer(issued: Issued, tool: Broker | undefined): Broker {
    if (tool === undefined && issued.redeemer === "tool") {
      throw new PreconditionError(
        `only the tool \`${this.#lease.tool}\` can redeem this handle; give it the handle, or redeem \`with\` its broker`,
      );
    }
    return tool ?? this.#broker;
  }
}

/**
 * How long a fresh handle is worth waiting for, in milliseconds. A broker that is gone breaks the lease at the same time,
 * and a renewal that overtook the handle is in the stream already.
 */
function staleFor(error: unknown): number {
  if (error instanceof HandleNotActiveError) return 250;
  return error instanceof UnavailableError && !error.nothingDone ? 1000 : 0;
}
