/** The trip: which secrets it takes, and what the model is told. */

/** For the tool `navan.book_flight`: the login, and the card to pay with. */
export const NAVAN = {
  navan_username: "op://Tutorial/Navan/username",
  navan_password: "op://Tutorial/Navan/password",
  card_number: "op://Tutorial/Travel Card/number",
  card_expiry: "op://Tutorial/Travel Card/expiry date",
  card_code: "op://Tutorial/Travel Card/verification number",
} as const;

/** For the tool `ramp.submit_expense`. */
export const RAMP = {
  ramp_username: "op://Tutorial/Ramp/username",
  ramp_password: "op://Tutorial/Ramp/password",
} as const;

/** What the model is told; `credentials` are values in the tutorial's way, and handles in ours. */
export function instructions(credentials: Readonly<Record<string, string>>): string {
  const lines = Object.entries(credentials).map(([name, text]) => `${name}: ${text}`);
  return `You book trips and file their expenses. Pass these credentials to the tools that ask for them:\n${lines.join("\n")}`;
}

export const TASK = "Book the cheapest flight from Berlin to Lisbon on 14 December, and file the expense.";
