/** What a client shows, and whom it trusts; found as the `valetkey` program finds it. */

import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import type { Address } from "./address.js";
import { ConfigurationError } from "./errors.js";
import { shown } from "./shown.js";

/** Who the caller is, and whom it trusts to be the broker. */
export interface Credentials {
  /** A bearer token, or where it comes from: a function is asked before each call, so that a renewed one is shown. */
  readonly token?: string | (() => string);
  /** A file with the token, read before each call. Ignored where there is a `token`. */
  readonly tokenFile?: string;
  /** The authority of the broker's certificate, in PEM form. Must be set for `https`, which trusts nobody else. */
  readonly ca?: string;
  /** A client certificate, in PEM form; read for each connection. */
  readonly certificate?: string;
  /** Its key, in PEM form. */
  readonly key?: string;
}

/** What a TLS connection takes. */
export interface TlsFiles {
  readonly ca: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

/** The credentials that the environment names. */
export function credentialsFrom(env: Readonly<Record<string, string | undefined>>): Credentials {
  const { VALETKEY_TOKEN, VALETKEY_TOKEN_FILE, VALETKEY_CA, VALETKEY_CERT, VALETKEY_KEY } = env;
  return {
    ...(VALETKEY_TOKEN !== undefined && { token: VALETKEY_TOKEN }),
    ...(VALETKEY_TOKEN_FILE && { tokenFile: VALETKEY_TOKEN_FILE }),
    ...(VALETKEY_CA && { ca: VALETKEY_CA }),
    ...(VALETKEY_CERT && { certificate: VALETKEY_CERT }),
    ...(VALETKEY_KEY && { key: VALETKEY_KEY }),
  };
}

/** Says now what would fail later. */
export function checkCredentials(credentials: Credentials, address: Address): void {
  const { ca, certificate, key } = credentials;
  if ((certificate === undefined) !== (key === undefined)) {
    throw new ConfigurationError(
      "a client certificate needs its key, and a key its certificate: set `VALETKEY_CERT` and `VALETKEY_KEY`",
    );
  }
  if (certificate !== undefined && address.kind !== "tls") {
    throw new ConfigurationError(
      "the broker is reached without TLS, so the client certificate would not be shown; use `https`, or leave it out",
    );
  }
  if (address.kind === "tls") tlsFiles({ ...credentials, ca });
  const token = bearer(credentials);
  if (token === undefined && certificate === undefined && address.kind !== "unix") {
    throw new ConfigurationError(
      "who are you? set `VALETKEY_TOKEN` or `VALETKEY_TOKEN_FILE` (`valetkey token create` makes a token), or " +
        "`VALETKEY_CERT` and `VALETKEY_KEY`",
    );
  }
}

/** The token to show now. */
export function bearer({ token, tokenFile }: Credentials): string | undefined {
  if (token !== undefined) return parseToken(typeof token === "function" ? token() : token);
  return tokenFile === undefined ? undefined : parseToken(read(tokenFile).toString("utf8"));
}

/** Whether the token may be another one tomorrow. */
export function isRenewable({ token, tokenFile }: Credentials): boolean {
  return typeof token === "function" || (token === undefined && tokenFile !== undefined);
}

/** The files of a TLS connection, as they are now. */
export function tlsFiles({
  ca,
  certificate,
  key,
}: {
  ca?: string | undefined;
  certificate?: string;
  key?: string;
}): TlsFiles {
  if (ca === undefined) {
    throw new ConfigurationError("who signs the broker's certificate? name the file of its authority (`VALETKEY_CA`)");
  }
  return {
    ca: pem(ca, "CERTIFICATE"),
    ...(certificate !== undefined && { cert: pem(certificate, "CERTIFICATE") }),
    ...(key !== undefined && { key: pem(key, "PRIVATE KEY") }),
  };
}

/** A token, if it can be one; white space around it, as at the end of a file, does not count. */
export function parseToken(text: string): string {
  const token = text.trim();
  if (token === "") throw new ConfigurationError("the token is empty; `valetkey token create` makes one");
  if (token.length > TOKEN_LENGTH_MAX) {
    throw new ConfigurationError(`the token has more than ${TOKEN_LENGTH_MAX} characters; is it the right file?`);
  }
  if (!/^[!-~]+$/.test(token)) {
    throw new ConfigurationError("the token has a character that no token has; is it the right file?");
  }
  if (isForeign(token)) {
    throw new ConfigurationError(
      "this is a service account's token, which opens a whole account and is not for a broker, so it was not sent; " +
        "`valetkey token create` makes one",
    );
  }
  return token;
}

/** Whether a text has the form of a token that a broker may know: its own, or an issuer's. */
export function isOwn(token: string): boolean {
  return OWN.test(token);
}

/** Whether a service account's token of 1Password's is in it. */
export function isForeign(token: string): boolean {
  return /ops_/i.test(token) && !isOwn(token);
}

function pem(file: string, wanted: string): Buffer {
  const content = read(file);
  if (!content.includes(`${wanted}-----`)) {
    throw new ConfigurationError(`\`${shown(file)}\` has no ${wanted.toLowerCase()} in PEM form`);
  }
  return content;
}

/** A file's content. What is no file may have no end, or keep everybody waiting. */
function read(file: string): Buffer {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    if (!fstatSync(descriptor).isFile()) throw new ConfigurationError(`\`${shown(file)}\` is no regular file`);
    const content = Buffer.alloc(FILE_SIZE_MAX + 1);
    let size = 0;
    for (let more = 1; more > 0 && size < content.length; size += more) {
      more = readSync(descriptor, content, size, content.length - size, null);
    }
    if (size <= FILE_SIZE_MAX) return Buffer.from(content.subarray(0, size));
  } catch (error) {
    if (error instanceof ConfigurationError) throw error;
    const why = error instanceof Error && "code" in error ? String(error.code) : "it cannot be opened";
    throw new ConfigurationError(`\`${shown(file)}\` cannot be read: ${why}`);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
  throw new ConfigurationError(`\`${shown(file)}\` has more than ${FILE_SIZE_MAX} bytes`);
}

/** `vkt_…`, or a JSON web token. */
const OWN = /^(?:vkt_\w+|eyJ[\w-]*\.[\w-]+\.[\w-]*)$/;
/** More than any bearer token or signed identity that fits into a header. */
const TOKEN_LENGTH_MAX = 8192;
/** Far more than a chain or a bundle has. */
const FILE_SIZE_MAX = 1024 * 1024;
