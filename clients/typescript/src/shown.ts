/** What somebody wrote, fit for a message: it may be a token or a key by mistake, and that is not repeated. */
export function shown(text: string): string {
  return CREDENTIAL.test(text) ? "(a credential)" : text.replace(/\p{Cc}/gu, "").slice(0, 256);
}

const CREDENTIAL = /vkt_|vkh_|ops_|-----BEGIN|eyJ/i;
