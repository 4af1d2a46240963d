// Generates src/gen from the broker's protocol buffers. Whoever uses the package never runs it: its output is
// committed. `--check` generates aside, and fails where that differs from what is committed.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const committed = join(home, "src/gen");

if (process.argv.includes("--check")) {
  const fresh = mkdtempSync(join(tmpdir(), "valetkey-gen-"));
  try {
    generate(fresh);
    const [are, ought] = [texts(join(fresh, "src/gen")), texts(committed)];
    const stale = [...new Set([...are.keys(), ...ought.keys()])].filter((name) => are.get(name) !== ought.get(name));
    if (stale.length > 0) {
      console.error(`src/gen is not what the protocol buffers say: ${stale.join(", ")}; run \`npm run generate\``);
      process.exitCode = 1;
    }
  } finally {
    rmSync(fresh, { recursive: true });
  }
} else {
  generate(home);
}

/** Runs buf, which writes to `src/gen` below `out`. */
function generate(out) {
  const buf = join(home, "node_modules/.bin/buf");
  execFileSync(buf, ["generate", "--output", out], { cwd: home, stdio: ["ignore", "inherit", "inherit"] });
}

/** Each file below `folder`, and its text. */
function texts(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((file) => join(file.parentPath ?? file.path, file.name));
  return new Map(paths.map((path) => [relative(folder, path), readFileSync(path, "utf8")]));
}
