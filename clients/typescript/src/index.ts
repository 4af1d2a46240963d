/**
 * The TypeScript client of a valetkey broker: handles for the model, values for the tool.
 *
 * - A token travels in clear text over loopback only; TLS trusts the one authority that it is given.
 * - No value prints itself, and no error holds a value, a handle or a token.
 * - Every call ends within its deadline, and a broker that is gone is noticed within seconds.
 */

export {
  type Access,
  Broker,
  type BrokerOptions,
  type CheckOptions,
  type LeaseOptions,
  type Patience,
} from "./broker.js";
export type { Credentials } from "./credentials.js";
export * from "./errors.js";
export { Lease } from "./lease.js";
export { LeasedSecret, type RedeemOptions } from "./leased.js";
export { CONCEALED, Secret } from "./secret.js";
export { VERSION } from "./version.js";
