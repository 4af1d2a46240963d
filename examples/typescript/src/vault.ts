/**
 * Stands in for 1Password and its SDK, so that the tutorial's way runs without an account: the names of the SDK, over the
 * vault of the travel story.
 */

import { readFileSync } from "node:fs";

interface Vault {
  vaults: { id: string; name: string }[];
  items: { title: string; vault: { id: string }; fields: { label: string; value: string }[] }[];
}

const file = new URL("../../travel/vault.json", import.meta.url);
const vault: Vault = JSON.parse(readFileSync(file, "utf8"));

/** As the SDK's. */
export async function createClient(_: { auth?: string; integrationName: string; integrationVersion: string }) {
  return {
    secrets: {
      resolve: async (reference: string): Promise<string> => behind(reference),
    },
  };
}

/** What is behind a reference. */
export function behind(reference: string): string {
  const [vaultName, title, label] = reference.replace("op://", "").split("/");
  const id = vault.vaults.find(({ name }) => name === vaultName)?.id;
  const item = vault.items.find((item) => item.title === title && item.vault.id === id);
  const value = item?.fields.find((field) => field.label === label)?.value;
  if (value === undefined) throw new Error(`nothing is behind \`${reference}\``);
  return value;
}
