/** What the documentation shows is run as it stands. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { PACKAGE, ROOT, TestBroker } from "./harness.js";

const run = promisify(execFile);

/** The blocks of a page in one language. */
function blocks(page: string, language: string): string[] {
  const text = readFileSync(join(ROOT, page), "utf8");
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .filter(([, kind]) => kind === language)
    .map(([, , body]) => body ?? "");
}

/** A folder in which the package is installed. */
async function project<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "valetkey-docs-"));
  try {
    mkdirSync(join(folder, "node_modules/@types"), { recursive: true });
    symlinkSync(PACKAGE, join(folder, "node_modules/valetkey"));
    symlinkSync(join(PACKAGE, "node_modules/@types/node"), join(folder, "node_modules/@types/node"));
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("from install to a redeemed handle in under 20 lines", async () => {
  const [install = "", program = ""] = [
    blocks("docs/typescript.md", "console")[0],
    blocks("docs/typescript.md", "js")[0],
  ];
  assert.match(install, /npm install \.\.\/valetkey\/clients\/typescript/);
  assert.ok(`${install}${program}`.trim().split("\n").length < 20);
  await using broker = await TestBroker.start();
  await project(async (folder) => {
    writeFileSync(join(folder, "first.mjs"), program);
    const env = { ...process.env, ...broker.env("travel-bot"), NAVAN_TOKEN: broker.token("navan.book_flight") };
    const { stdout } = await run(process.execPath, ["first.mjs"], { cwd: folder, env, timeout: 20_000 });
    assert.match(stdout, /^vkh_\S{57}\n<concealed by valetkey> 26\n$/);
  });
});

test("every other piece of TypeScript compiles", async () => {
  const pages = ["docs/typescript.md", "clients/typescript/README.md", "clients/typescript/SKILL.md"];
  const pieces = pages.flatMap((page) => blocks(page, "ts"));
  assert.ok(pieces.length >= 6);
  await project(async (folder) => {
    const names = pieces.map((piece, at) => {
      const given = KNOWN.filter((line) => !declares(piece, line)).join("\n");
      writeFileSync(join(folder, `piece-${at}.mts`), `${given}\n${piece}\nexport {};\n`);
      return `piece-${at}.mts`;
    });
    const options = [
      "--noEmit",
      "--strict",
      "--target",
      "es2022",
      "--types",
      "node",
      "--lib",
      "es2023,esnext.disposable",
    ];
    // Whoever has no browser's types, and checks those of libraries too, has all that ours need.
    for (const module of ["nodenext", "preserve"]) {
      const words = [...options, "--module", module, ...names];
      await run(join(PACKAGE, "node_modules/.bin/tsc"), words, { cwd: folder }).catch((error: { stdout: string }) =>
        assert.fail(error.stdout),
      );
    }
  });
});

/** What a reader would have around a piece. */
const KNOWN = [
  "declare const broker: import('valetkey').Broker;",
  "declare const agent: import('valetkey').Broker;",
  "declare const navan: import('valetkey').Broker;",
  "declare const lease: import('valetkey').Lease;",
  "declare const signal: AbortSignal;",
  "declare const bookFlight: { execute: (input: { password: string }) => Promise<string> };",
  "declare const listBookings: { execute: (input: object) => Promise<string[]> };",
];

function declares(piece: string, line: string): boolean {
  const name = /const (\w+)/.exec(line)?.[1];
  return new RegExp(`(const|using) ${name}\\b`).test(piece);
}
