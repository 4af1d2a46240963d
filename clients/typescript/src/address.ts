/** Where a broker is: `https://host:port`, `http://` over loopback, `unix:/path`. */

import { isIP } from "node:net";
import { ConfigurationError } from "./errors.js";
import { shown } from "./shown.js";

/** The address of a broker. */
export type Address =
  | { readonly kind: "plain"; readonly origin: string; readonly host: string; readonly port: number }
  | { readonly kind: "tls"; readonly origin: string; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly origin: string; readonly path: string };

/** Reads an address. A token never travels in clear text beyond loopback. */
export function parseAddress(text: string): Address {
  if (text.startsWith("unix:")) {
    // `unix:///path` means the same.
    const path = text.slice("unix:".length).replace(/^\/\/(?=\/)/, "");
    if (path === "" || path.includes("\0")) throw bad(text);
    return { kind: "unix", origin: "http://localhost", path };
  }
  if (!URL.canParse(text)) throw bad(text);
  const url = new URL(text);
  // Credentials, a path or a query would be dropped in silence.
  if (url.username || url.password || text.includes("@") || url.pathname !== "/" || url.search || url.hash) {
    throw bad(text);
  }
  const host = url.hostname.replace(/^\[|\]$/g, "");
  if (host === "") throw bad(text);
  switch (url.protocol) {
    case "http:":
      if (!isLoopback(host)) throw notLoopback(text);
      return { kind: "plain", origin: url.origin, host, port: Number(url.port || 80) };
    case "https:":
      return { kind: "tls", origin: url.origin, host, port: Number(url.port || 443) };
    default:
      throw bad(text);
  }
}

/** `localhost` counts: resolvers must answer it with loopback (RFC 6761, section 6.3). */
function isLoopback(host: string): boolean {
  if (host.toLowerCase() === "localhost" || host === "::1") return true;
  return isIP(host) === 4 && host.startsWith("127.");
}

function bad(text: string): ConfigurationError {
  return new ConfigurationError(
    `\`${named(text)}\` is no address of a broker; it looks like \`https://broker.example.com:7447\`, ` +
      "`http://127.0.0.1:7447` or `unix:/run/valetkey/broker.sock`",
  );
}

function notLoopback(text: string): ConfigurationError {
  return new ConfigurationError(
    `\`${named(text)}\` is not a loopback address, and nothing travels there in clear text; use \`https\` and name the ` +
      "broker's authority (`VALETKEY_CA`)",
  );
}

/** An address may hold a password before its `@`. */
function named(text: string): string {
  return shown(text.includes("@") ? (text.split("@").at(-1) ?? "") : text);
}
