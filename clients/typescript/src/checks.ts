/** What callers pass, checked before anything is sent: the same error class as the service's refusal. */

import { InvalidRequest } from "./errors.js";

/** The error for an argument that cannot be sent. */
export function invalid(field: string, description: string): InvalidRequest {
  return new InvalidRequest(`${field} ${description} Nothing was sent.`, {
    code: "INVALID_ARGUMENT",
    violations: [{ field, description }],
  });
}

export function text(field: string, value: unknown, what = "text"): string {
  if (typeof value !== "string") {
    throw invalid(field, `is ${shown(value)}; pass ${what}.`);
  }
  return value;
}

/** The UUID of a pass. Whether it is one is for the service to say. */
export function id(field: string, value: unknown): string {
  return text(field, value, "the UUID of a pass, as text");
}

export function flag(field: string, value: unknown): boolean {
  if (typeof value !== "boolean") {
    throw invalid(field, `is ${shown(value)}; pass true or false.`);
  }
  return value;
}

export function word<T extends string>(field: string, value: unknown, known: readonly T[]): T {
  const found = known.find((each) => each === value);
  if (found === undefined) {
    throw invalid(field, `is ${shown(value)}; pass one of: ${known.join(", ")}.`);
  }
  return found;
}

export function integer(field: string, value: unknown, least: number, most: number): number {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) {
    throw invalid(field, `is ${shown(value)}; pass a whole number from ${least} to ${most}.`);
  }
  return value as number;
}

/** A duration, milliseconds. */
export function duration(field: string, value: unknown): number {
  if (typeof value !== "number" || !(value > 0) || value > MAX_MS) {
    throw invalid(field, `is ${shown(value)}; pass milliseconds, above 0 and up to ${MAX_MS}.`);
  }
  return value;
}

export function moment(field: string, value: unknown): Date {
  if (!(value instanceof Date) || Number.isNaN(value.getTime())) {
    throw invalid(field, `is ${shown(value)}; pass a Date that is valid.`);
  }
  return value;
}

/** Refuses a string: as a sequence of characters it is never what is meant. */
export function several<T>(field: string, value: unknown): Iterable<T> {
  if (typeof value === "object" && value !== null && Symbol.iterator in value) {
    return value as Iterable<T>;
  }
  throw invalid(field, `is ${shown(value)}; pass a list, such as [${shown(value)}].`);
}

/** Refuses an argument that is not an object, and names that it does not have. */
export function options<T extends object>(value: T, known: readonly (keyof T & string)[]): T {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalid("options", `are ${shown(value)}; pass an object, such as { ${known[0]}: … }.`);
  }
  for (const name of Object.keys(value)) {
    if (!known.includes(name as keyof T & string)) {
      throw invalid(name, `is not an option here; these are: ${known.join(", ")}.`);
    }
  }
  return value;
}

/** Of setTimeout and of gRPC, milliseconds: 24 days. */
const MAX_MS = 2 ** 31 - 1;

function shown(value: unknown): string {
  if (typeof value === "string") {
    const text = JSON.stringify(value);
    return text.length > 80 ? `${text.slice(0, 80)}…` : text;
  }
  if (typeof value === "object" && value !== null) {
    return Array.isArray(value) ? "an array" : `an object (${value.constructor?.name ?? "Object"})`;
  }
  return typeof value === "function" ? "a function" : String(value);
}
