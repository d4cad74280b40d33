/**
 * Texts of the emulator are *byte strings*: one UTF-16 unit per byte, 0 to 255. Header values may hold any
 * byte, and a byte string keeps them all, compares fast and prints well in a failed assertion.
 */

export function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

const UPPER = /[A-Z]/;

/** Lower-cases ASCII only: bytes above 127 are no letters to a proxy. */
export function lowerAscii(text: string): string {
  return UPPER.test(text) ? text.replace(/[A-Z]+/g, upper => upper.toLowerCase()) : text;
}
