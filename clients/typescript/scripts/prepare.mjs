// Makes dist/ where npm installs this package from a folder or from git, and before it packs it. npm installs no
// development dependencies for a package that it links to, so they are fetched here, once, from the lock file.
import { execFileSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL("..", import.meta.url));
const compiler = join(home, "node_modules/typescript/package.json");
const runtime = join(home, "node_modules/@connectrpc/connect-node/package.json");

if (!existsSync(compiler) || !existsSync(runtime)) {
  npm("ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund");
}
rmSync(join(home, "dist"), { recursive: true, force: true });
npm("run", "--silent", "build");

/** Runs the npm that runs us, or the one on the path. */
function npm(...words) {
  const env = { ...process.env };
  // Where the outer npm installs to is not where this one shall.
  for (const name of ["npm_config_local_prefix", "npm_config_global", "npm_config_location", "npm_config_omit"]) {
    delete env[name];
  }
  const [program, first] = env.npm_execpath ? [process.execPath, [env.npm_execpath]] : ["npm", []];
  execFileSync(program, [...first, ...words], { cwd: home, env, stdio: "inherit" });
}
