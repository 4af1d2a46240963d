/**
 * The names of 1Password's JavaScript SDK for resolving secrets, over a valetkey broker: one import changes.
 *
 *     import { createClient } from "valetkey/onepassword";
 *
 * Each call is a lease, a redeem and an end: decided by policy, written down, and over when it returns. It gives values,
 * as the SDK does, so it is for code that no model reads along with; policy must say `@redeem_by("agent")`, or the call's
 * own `with` must name the tool's broker. Where a model is near, use `Broker` and hand it handles.
 *
 * Not here: items, vaults, environments, groups and made-up passwords. This is no package of 1Password's.
 */

import { Broker } from "./broker.js";
import { isForeign, isOwn } from "./credentials.js";
import {
  ConfigurationError,
  InvalidRequestError,
  LimitReachedError,
  PreconditionError,
  UnauthenticatedError,
  ValetkeyError,
} from "./errors.js";
import type { Lease } from "./lease.js";
import type { RedeemOptions } from "./leased.js";
import { errorOf } from "./status.js";

export const DEFAULT_INTEGRATION_NAME = "Unknown";
export const DEFAULT_INTEGRATION_VERSION = "Unknown";

/** As there; the last four are ours. What belongs to other ways of signing in is accepted, and not used. */
export interface ClientConfiguration {
  /** A token of the broker's, or of an issuer that it knows. Without one the environment says who calls. */
  readonly auth?: string | DesktopAuth | undefined;
  readonly integrationName: string;
  readonly integrationVersion: string;
  readonly oidcFetcher?: (audience: string) => Promise<string>;
  readonly workloadDetails?: object;
  /** Default: `VALETKEY_TOOL`, or else the integration's name: `My agent` is `My-agent`. */
  readonly tool?: string;
  /** Default: says the integration's name and version. */
  readonly purpose?: string;
  /** Default: the one that the environment names. */
  readonly broker?: Broker;
  /** The broker as the tool sees it, where the agent itself may not redeem. */
  readonly with?: Broker;
}

/** Accepted and not used: the broker knows who calls by other means. */
export class DesktopAuth {
  readonly accountName: string;

  constructor(accountName: string) {
    this.accountName = accountName;
  }
}

/** The broker's quota at its source, or its own bound for this caller, is reached. */
export class RateLimitExceededError extends LimitReachedError {}

/** What was shown is nobody's, or no longer anybody's. */
export class AuthExpiredError extends UnauthenticatedError {}

/** Never thrown here: there is no desktop app between a broker and its caller. */
export class DesktopSessionExpiredError extends ValetkeyError {}

/** Why a reference was not resolved. */
export type ResolveReferenceErrorType =
  | "parsing"
  | "fieldNotFound"
  | "vaultNotFound"
  | "tooManyVaults"
  | "itemNotFound"
  | "tooManyItems"
  | "tooManyMatchingFields"
  | "noMatchingSections"
  | "incompatibleTOTPQueryParameterField"
  | "unableToGenerateTotpCode"
  | "sSHKeyMetadataNotFound"
  | "unsupportedFileFormat"
  | "incompatibleSshKeyQueryParameterField"
  | "unableToParsePrivateKey"
  | "other";

/** Why a reference was not resolved; `reason` is the broker's own code, such as `ACCESS_DENIED`. */
export interface ResolveReferenceError {
  readonly type: ResolveReferenceErrorType;
  readonly message: string;
  readonly reason: string;
}

/** A value. The broker does not say by which ids: they are those of the reference, and empty where it has names. */
export interface ResolvedReference {
  readonly secret: string;
  readonly itemId: string;
  readonly vaultId: string;
}

/** One or the other. */
export interface Response<T, E> {
  readonly content?: T;
  readonly error?: E;
}

/** What came of each reference. */
export interface ResolveAllResponse {
  readonly individualResponses: Record<string, Response<ResolvedReference, ResolveReferenceError>>;
}

/** As there; nothing is sent yet. */
export async function createClient(config: ClientConfiguration): Promise<Client> {
  return new Client(config);
}

/** Resolves secrets over a broker. */
export class Client {
  readonly secrets: Secrets;

  constructor(config: ClientConfiguration) {
    this.secrets = new Secrets(config);
  }

  get items(): never {
    return absent("items");
  }

  get vaults(): never {
    return absent("vaults");
  }

  get environments(): never {
    return absent("environments");
  }

  get groups(): never {
    return absent("groups");
  }
}

/** Resolves secrets, each call with a lease of its own. */
export class Secrets {
  readonly #broker: Broker;
  readonly #redeem: RedeemOptions;
  readonly #tool: string;
  readonly #purpose: string;

  constructor(config: ClientConfiguration) {
    const { integrationName, integrationVersion } = config;
    this.#broker = config.broker ?? brokerFor(config.auth);
    this.#redeem = config.with === undefined ? {} : { with: config.with };
    this.#tool = config.tool ?? (process.env.VALETKEY_TOOL || toolOf(integrationName));
    this.#purpose = shorten(config.purpose ?? `resolve a secret for ${integrationName} ${integrationVersion}`);
  }

  /**
   * The value that the reference points to. Throws `RateLimitExceededError`, `AuthExpiredError`, or another
   * `ValetkeyError`: `DeniedError`, `ApprovalRequiredError`, `NotFoundError`, …
   */
  async resolve(secretReference: string): Promise<string> {
    return await named(async () => {
      await using lease = await this.#lease([secretReference], false);
      return await this.#value(lease, secretReference);
    });
  }

  /** The values that the references point to, or why not, one by one. */
  async resolveAll(secretReferences: string[]): Promise<ResolveAllResponse> {
    const wanted = [...new Set(secretReferences)];
    const answers = new Map<string, Response<ResolvedReference, ResolveReferenceError>>();
    for (const reference of wanted) {
      const fault = faultOf(reference);
      if (fault !== undefined) answers.set(reference, { error: reported(fault) });
    }
    const good = wanted.filter((reference) => !answers.has(reference));
    for (let start = 0; start < good.length; start += REFERENCES_MAX) {
      const some = good.slice(start, start + REFERENCES_MAX);
      await named(async () => {
        await using lease = await this.#lease(some, true);
        for (const reference of some) answers.set(reference, await this.#answer(lease, reference));
      });
    }
    // `fromEntries` makes own properties of whatever a reference is called.
    return {
      individualResponses: Object.fromEntries(wanted.map((reference) => [reference, answers.get(reference) ?? {}])),
    };
  }

  /** Throws where the text is no secret reference. Nobody is asked. */
  static validateSecretReference(secretReference: string): void {
    const fault = faultOf(secretReference);
    if (fault !== undefined) throw fault;
  }

  async #lease(references: string[], partial: boolean): Promise<Lease> {
    const names = Object.fromEntries(references.map((reference) => [reference, reference]));
    return await this.#broker.lease(names, { tool: this.#tool, purpose: this.#purpose, partial });
  }

  async #value(lease: Lease, reference: string): Promise<string> {
    using secret = await lease.get(reference).redeem(this.#redeem);
    return secret.expose();
  }

  async #answer(lease: Lease, reference: string): Promise<Response<ResolvedReference, ResolveReferenceError>> {
    try {
      const [vaultId = "", itemId = ""] = reference.slice("op://".length).split("/").map(idOf);
      return { content: { secret: await this.#value(lease, reference), itemId, vaultId } };
    } catch (error) {
      if (error instanceof TypeError)
        return { error: { type: "unsupportedFileFormat", message: error.message, reason: "" } };
      return { error: reported(errorOf(error)) };
    }
  }
}

/** The SDK's classes, for what has one there. */
async function named<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof LimitReachedError) throw new RateLimitExceededError(error.message, error);
    if (error instanceof UnauthenticatedError) throw new AuthExpiredError(error.message, error);
    throw error;
  }
}

function brokerFor(auth: string | DesktopAuth | undefined): Broker {
  const isUnused = auth instanceof DesktopAuth || (typeof auth === "string" && isForeign(auth.trim()));
  if (isUnused) {
    // A service account's token opens a whole account: it goes nowhere.
    process.emitWarning(
      "a broker is asked instead of 1Password, so `auth` is not needed, and was not used; take a service account's " +
        "token out of this environment",
    );
  }
  if (isUnused || !auth) return Broker.fromEnv();
  if (!isOwn(auth.trim())) {
    throw new ConfigurationError(
      "`auth` is no token that a broker knows, so it was not sent; leave it out, and name the token in `VALETKEY_TOKEN`",
    );
  }
  const { VALETKEY_TOKEN_FILE, ...env } = process.env;
  return Broker.fromEnv({ env: { ...env, VALETKEY_TOKEN: auth } });
}

/** A tool's name has no blanks. */
function toolOf(integrationName: string): string {
  const name = integrationName.replace(/[^A-Za-z0-9._/@:-]+/g, "-").replace(/^-+|-+$/g, "");
  return name.slice(0, TOOL_LENGTH_MAX) || "onepassword-sdk";
}

function shorten(text: string): string {
  const bytes = new TextEncoder().encode(text).slice(0, PURPOSE_LENGTH_MAX);
  return new TextDecoder().decode(bytes).replace(/\ufffd+$/, "");
}

function faultOf(reference: string): InvalidRequestError | undefined {
  const parts = REFERENCE.exec(reference)?.groups?.path?.split("/") ?? [];
  const isBad = (part: string) => part !== part.trim() || part === "." || part === ".." || part.length > 256;
  if (parts.length > 0 && !parts.some(isBad)) return undefined;
  return new InvalidRequestError(
    "a secret reference is `op://<vault>/<item>/[<section>/]<field>`, and names parts with other characters than " +
      "letters, digits, blanks and `_` `.` `-` by their id",
    { reason: "INVALID_SECRET_REFERENCE" },
  );
}

function reported(error: ValetkeyError): ResolveReferenceError {
  const { message, reason } = error;
  if (error instanceof InvalidRequestError) return { type: "parsing", message, reason };
  const kind = KINDS.get(reason) ?? "other";
  if (error instanceof PreconditionError && reason === "AMBIGUOUS_REFERENCE") {
    // One reason of the broker's, three of the SDK's: the text tells them apart.
    if (message.includes("more than one vault")) return { type: "tooManyVaults", message, reason };
    if (message.includes("more than one item")) return { type: "tooManyItems", message, reason };
  }
  return { type: kind, message, reason };
}

/** A part of a reference, where it is an id. Policies permit nothing by a name that looks like one. */
function idOf(part: string): string {
  return ID.test(part) ? part : "";
}

function absent(what: string): never {
  throw new PreconditionError(`a broker resolves secrets and shows no \`${what}\`; use 1Password's own SDK for that`);
}

const KINDS = new Map<string, ResolveReferenceErrorType>([
  ["FIELD_NOT_FOUND", "fieldNotFound"],
  ["VAULT_NOT_FOUND", "vaultNotFound"],
  ["ITEM_NOT_FOUND", "itemNotFound"],
  ["ITEM_NOT_ACTIVE", "itemNotFound"],
  ["SECTION_NOT_FOUND", "noMatchingSections"],
  ["AMBIGUOUS_REFERENCE", "tooManyMatchingFields"],
  ["FIELD_NOT_OTP", "incompatibleTOTPQueryParameterField"],
  ["OTP_SEED_MALFORMED", "unableToGenerateTotpCode"],
  ["FIELD_NOT_PRIVATE_KEY", "incompatibleSshKeyQueryParameterField"],
  ["PRIVATE_KEY_MALFORMED", "unableToParsePrivateKey"],
  ["FILE_NOT_TEXT", "unsupportedFileFormat"],
]);
const REFERENCE = /^op:\/\/(?<path>[\w .-]+(?:\/[\w .-]+){2,3})(?:\?(?:attribute=t?otp|ssh-format=openssh))?$/;
const ID = /^[a-z0-9]{26}$/;
const REFERENCES_MAX = 64;
const TOOL_LENGTH_MAX = 128;
const PURPOSE_LENGTH_MAX = 512;
