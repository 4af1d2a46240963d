//! What stands below the options in the help of each command.

pub(super) const ENVIRONMENT: &str = "\
Environment:
  VALETKEY_ADDRESS     the broker, instead of --address
  VALETKEY_TOKEN       who calls; a token is never an argument
  VALETKEY_TOKEN_FILE  a file with the token
  VALETKEY_CA          the authority of the broker's certificate, instead of --ca
  VALETKEY_CERT        a client certificate, instead of --cert
  VALETKEY_KEY         its key, instead of --key
  VALETKEY_TOOL        the tool of `read`, `inject` and `run`, instead of --tool
  VALETKEY_PURPOSE     their purpose, instead of --purpose
  VALETKEY_TOOL_TOKEN  the tool's own token, where it redeems; or VALETKEY_TOOL_TOKEN_FILE
  VALETKEY_LOG         what `serve` logs, such as debug or valetkey_server=debug,warn
  NO_COLOR             set: no colour

Exit codes:
  0 done, 1 failed, 2 denied, 3 invalid policy or configuration, 4 a person has to approve it first,
  64 usage, 69 unavailable

Try `valetkey demo`.";

pub(super) const DEMO_EXAMPLES: &str = "\
Seven secrets for two tools, and everything that must not happen: other tools, other agents, stolen and \
used handles, handles after the stream closes, and a policy that changes under a live lease. Ends with \
the report and the audit log of all that. Exits 0 only if every step went as told.

Example:
  valetkey demo";

pub(super) const SERVE_EXAMPLES: &str = "\
SIGHUP loads the policies again (a change of their files does too); SIGINT and SIGTERM end the leases \
and stop.

Examples:
  valetkey serve --dev
  valetkey serve --config valetkey.toml --create-database    the first time
  valetkey serve --config valetkey.toml --log-format json";

pub(super) const ACQUIRE_EXAMPLES: &str = "\
The lease lives until this command ends (Ctrl-C): its handles are dead then. A handle is renewed before \
it expires; use the newest. Exits 2 where policy refuses or revokes.

Examples:
  valetkey acquire --tool navan.book_flight --purpose 'book LIS-BER' \\
      op://Tutorial/Navan/username op://Tutorial/Navan/password
  valetkey acquire --tool navan.book_flight --purpose 'book LIS-BER' --ttl 2m --format jsonl \\
      'op://Tutorial/Travel Card/number'";

pub(super) const REDEEM_EXAMPLES: &str = "\
The value goes to stdout as it is, without a line end in a pipe.

Examples:
  printf %s \"$HANDLE\" | valetkey redeem
  valetkey redeem --token-file /run/secrets/navan-token < handle.txt";

pub(super) const READ_EXAMPLES: &str = "\
One lease, one value, and the lease ends. The value is then wherever you put it: a handle is safer. The agent redeems \
where policy says `@redeem_by(\"agent\")`; otherwise the tool does, and its token is needed too.

Examples:
  valetkey read --tool deploy op://Production/Database/password
  valetkey read --tool deploy -o key.pem op://Production/Deploy/key.pem";

pub(super) const INJECT_EXAMPLES: &str = "\
A template has references bare, or as {{ op://vault/item/field }}; $VARIABLE, ${VARIABLE} and ${VARIABLE:-default} are \
filled from the environment; {{ \"{{ this }}\" }} stays as it is. All references together are one lease.

Examples:
  echo 'password: {{ op://Production/Database/password }}' | valetkey inject --tool deploy
  valetkey inject --tool deploy -i config.yml.tpl -o config.yml";

pub(super) const RUN_EXAMPLES: &str = "\
Variables of the environment that are a reference, and those of the files, are filled in for the command alone. What it \
prints is searched for the values, also in base64, percent-encoded and in JSON. The lease ends with the command; \
signals and its exit code pass through. The broker's tokens are taken out of its environment.

Examples:
  DB_PASSWORD=op://Production/Database/password valetkey run --tool deploy -- ./migrate
  valetkey run --tool deploy --env-file .env -- npm start
  valetkey run --tool navan.book_flight --handles --env-file .env -- python agent.py";

pub(super) const MCP_EXAMPLES: &str = "\
For the configuration of an MCP client; docs/mcp.md has it for several. The leases that the model asks for end when its \
client goes away.

Example:
  claude mcp add valetkey --env VALETKEY_TOKEN_FILE=$HOME/agent.token -- valetkey mcp";

pub(super) const CHECK_EXAMPLES: &str = "\
Exits 2 where it would be refused.

Example:
  valetkey check --tool navan.book_flight op://Tutorial/Navan/password";

pub(super) const QUERY_EXAMPLES: &str = "\
JSON, JSON lines and CSV have all fields of a record, the table the main ones. In CSV, a cell that a \
spreadsheet would run has an apostrophe before it.

Examples:
  valetkey audit query agent:travel-bot decision:deny
  valetkey audit query 'created:>=2026-11-01 -tool:web.search' --limit 1000 --format csv";

pub(super) const SHOW_EXAMPLES: &str = "\
Example:
  valetkey audit show 42";

pub(super) const WATCH_EXAMPLES: &str = "\
A record comes before what it permits, so its outcome may come later, and is not shown then: `audit show` \
has it.

Examples:
  valetkey audit watch decision:deny
  valetkey audit watch --after 0 --format jsonl";

pub(super) const EXPORT_EXAMPLES: &str = "\
Ends with the newest record that has nothing open before it, so that no line ever changes: a later export \
goes on from there. A file is made with mode 0600.

Examples:
  valetkey audit export --to audit.jsonl
  valetkey audit export --to audit.jsonl --resume            every night, say
  valetkey audit export --format csv decision:deny 'created:>=2026-11-01' > refused.csv
  valetkey audit export --format ocsf --database backup.db | jq .message";

pub(super) const BACKUP_EXAMPLES: &str = "\
The copy is one file, as the log was at one moment, and is checked before it gets its name. It holds no values; \
it does hold digests of tokens. What else a broker needs is said at the end.

Examples:
  valetkey backup --config /etc/valetkey/valetkey.toml --to audit-2026-11-01.db
  valetkey backup --database audit.db --to copy.db";

pub(super) const AUDIT_VERIFY_EXAMPLES: &str = "\
Exits 0 where the log is what was signed, 1 where it is not: then each record that was changed, removed, moved or
inserted is named. What is newer than the newest checkpoint is not signed yet, and is said to be so. Keep the key,
and checkpoints, where the log is not.

Examples:
  valetkey audit verify --database /var/lib/valetkey/audit.db --key log.pub --checkpoints checkpoints
  valetkey audit verify --export november.jsonl --key log.pub --checkpoints checkpoints
  valetkey audit verify --proof record-42.tlog-proof --key log.pub";

pub(super) const AUDIT_PROVE_EXAMPLES: &str = "\
The proof has the record itself in it, and is a C2SP tlog-proof. `audit verify --proof` checks it on any machine.

Examples:
  valetkey audit prove 42 > record-42.tlog-proof
  valetkey audit prove 42 --database backup.db > record-42.tlog-proof";

pub(super) const AUDIT_CHECKPOINT_EXAMPLES: &str = "\
Examples:
  valetkey audit checkpoint >> checkpoints
  valetkey audit checkpoint --public-key > log.pub";

pub(super) const TOKEN_EXAMPLES: &str = "\
The broker keeps a digest of the token; the token itself is stored nowhere.

Examples:
  valetkey token create --agent travel-bot --ttl 30d > travel-bot.token
  valetkey token create --tool navan.book_flight --format json
  valetkey token create --events --person ana --features itemusages,auditevents > events.token
  valetkey token create --config valetkey.toml --person omar > omar.token    the first one";

pub(super) const DEV_CA_EXAMPLES: &str = "\
Makes an authority, and certificates that it signs for the broker, an agent, a tool and a person; they are
good for a day. The authority's key is not kept: for others, make a fresh set. Prints the configuration, and
what to set to be each of the callers.

Examples:
  valetkey dev-ca try-out
  valetkey dev-ca try-out --host broker.internal --agent notes-bot";

pub(super) const DOCTOR_EXAMPLES: &str = "\
One line for each thing that was looked at: ok, warn or fail, and what to do. Asks each source the least that \
proves it works: one or two requests of its quota. Exits 1 where something fails, 3 where the configuration \
does.

With --connect, goes from the address to a call that the broker answers, with what the options or the environment say
is to be shown. The call changes nothing; the broker records it as malformed.

Examples:
  valetkey doctor --config /etc/valetkey/valetkey.toml
  valetkey doctor --connect https://broker.example.com:7447
  valetkey doctor --format json";

pub(super) const INSTALL_EXAMPLES: &str = "\
Nothing is installed unless its SHA-256 is that of a known release. Needs python3, and pip unless the wheel \
is here already. The library is 1Password's and under 1Password's terms.

Examples:
  valetkey onepassword install
  pip download --no-deps onepassword-sdk && valetkey onepassword install --offline-wheel onepassword_sdk-*.whl";
