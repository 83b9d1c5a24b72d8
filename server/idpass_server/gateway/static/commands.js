// The same request as shell commands.

const METHODS = {
  "/idpass/cancel": "CancelIdPass",
  "/idpass/batch-cancel": "BatchCancelIdPasses",
  "/idpass/register": "RegisterIdPass",
  "/idpass/advance": "AdvanceIdPass",
};
const PREFIXES = {
  reason: "CANCEL_REASON_",
  to_status: "ID_PASS_STATUS_",
  expected_status: "ID_PASS_STATUS_",
};

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export const http = ({ path, body }) =>
  `POST ${path} HTTP/1.1\nHost: ${location.host}\nContent-Type: application/json\n\n` +
  JSON.stringify(body, null, 2);

export const curl = ({ path, body }) =>
  `curl ${location.origin}${path} \\\n  -H 'Content-Type: application/json' \\\n` +
  `  -d ${quoted(JSON.stringify(body))}`;

/** In protobuf's JSON the enums have their full names. */
export function grpcurl({ path, body }, address) {
  const named = (key, value) => (key in PREFIXES ? PREFIXES[key] + value.toUpperCase() : value);
  return `grpcurl -plaintext -d ${quoted(JSON.stringify(body, named))} \\\n` +
    `  ${address} idpass.v1.IdPassService/${METHODS[path]}`;
}
